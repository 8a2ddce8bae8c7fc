"""Why a record is rejected: a closed set of codes, each explained in the README of this folder."""

from enum import StrEnum


class Reason(StrEnum):
    """The reason code of a rejected record, as stored in ``landing.rejected_events``."""

    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    INVALID_CSV = "invalid_csv"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_KEY = "duplicate_key"
    TOO_DEEP = "too_deep"
    LINE_TOO_LONG = "line_too_long"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    EMPTY_TEXT = "empty_text"
    TEXT_TOO_LONG = "text_too_long"
    CONTROL_CHARACTER = "control_character"
    NUL_CHARACTER = "nul_character"
    LONE_SURROGATE = "lone_surrogate"
    INVALID_TIME = "invalid_time"
    TOO_EARLY = "too_early"
    IN_THE_FUTURE = "in_the_future"
    INVALID_NUMBER = "invalid_number"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    INEXACT_NUMBER = "inexact_number"
    INVALID_CLOUDEVENT = "invalid_cloudevent"
    UNREADABLE_FILE = "unreadable_file"


class Refused(Exception):
    """A record that is not a valid event. ``detail`` names the field and says what to do."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
