"""The one kind of error that is shown to people as a message, without a traceback; and what none may show."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class MeteringError(Exception):
    """Something that a person can mend: the message says what is wrong, where, and what to do."""


class ArchivedError(MeteringError):
    """Days that are needed are archived; the message names the command that puts them back."""


class EmptyTextError(MeteringError, ValueError):
    """A text that is kept for good is empty."""


def require_texts(**texts: str) -> None:
    """Raise EmptyTextError for a text without anything in it."""
    for name, text in texts.items():
        if not text.strip():
            raise EmptyTextError(f"{name} must not be empty: it is kept for good")


_QUOTES_ROWS = re.compile(
    r"^[^\S\n]*(?:DETAIL|CONTEXT):.*?(?=^[^\S\n]*(?:HINT|LINE|QUERY|SQLSTATE|compiled code at)\b|\Z)",
    re.MULTILINE | re.DOTALL,
)

_QUOTED_VALUE = re.compile(r'(invalid input syntax for type [\w ]+|out of range): ".*"')


def without_rows(message: str) -> str:
    """PostgreSQL's message without what it quotes of rows: they are customers' data, and errors are logged."""
    return _QUOTED_VALUE.sub(r"\1", _QUOTES_ROWS.sub("", message)).strip()


@contextmanager
def hiding_rows(*kinds: type[Exception]) -> Iterator[None]:
    """Takes the rows out of the message of errors of these kinds."""
    try:
        yield
    except kinds as error:
        error.args = (without_rows(str(error)), *error.args[1:])
        raise
