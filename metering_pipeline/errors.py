"""The one kind of error that is shown to people as a message, without a traceback."""


class MeteringError(Exception):
    """Something that a person can mend: the message says what is wrong, where, and what to do."""
