"""The one kind of error that is shown to people as a message, without a traceback."""


class MeteringError(Exception):
    """Something that a person can mend: the message says what is wrong, where, and what to do."""


class EmptyTextError(MeteringError, ValueError):
    """A text that is kept for good is empty."""


def require_texts(**texts: str) -> None:
    """Raise EmptyTextError for a text without anything in it."""
    for name, text in texts.items():
        if not text.strip():
            raise EmptyTextError(f"{name} must not be empty: it is kept for good")
