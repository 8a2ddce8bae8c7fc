"""The rules of a usage event: what is accepted, and why the rest is rejected.

Pure functions. The same record in the same landing hour under the same limits is always decided
alike, so that landing again gives the same rows.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from metering_pipeline.landing import canonical
from metering_pipeline.landing.reasons import Reason, Refused

MAX_LINE_BYTES = 1 << 20
"""A longer record is rejected as ``line_too_long``: it bounds the memory that one record can take."""

TOO_LONG = f"the record is longer than {MAX_LINE_BYTES} bytes; send less in one record"

MAX_TEXT_BYTES = 255

FIELDS = (
    "tenant_id",
    "event_type",
    "occurred_at",
    "correlation_id",
    "quantity",
    "properties",
    "void",
)
REQUIRED_FIELDS = FIELDS[:4]

_NOT_OF_A_CLOUD_EVENT = frozenset(FIELDS) - {"void"}
"""Beside ``data`` these would be extension attributes, and a quantity among them would not count."""


class Event(NamedTuple):
    """A valid event. ``occurred_at`` is UTC with microseconds, ``properties`` canonical JSON text."""

    tenant_id: str
    event_type: str
    occurred_at: datetime
    correlation_id: str
    quantity: Decimal
    properties: str
    void: bool


class Rejection(NamedTuple):
    """Why a record is no valid event; the detail names the field and says what to do."""

    reason: Reason
    detail: str


class Limits(NamedTuple):
    """The instants an event may have: from ``earliest`` on, before ``end``."""

    earliest: datetime
    end: datetime

    @classmethod
    def of_hour(
        cls, landed_hour: datetime, earliest_event_date: date, future_tolerance_minutes: int
    ) -> "Limits":
        """The limits of a landing hour. They depend on the hour, not on the clock."""
        return cls(
            earliest=datetime.combine(earliest_event_date, datetime.min.time(), UTC),
            end=landed_hour + timedelta(hours=1, minutes=future_tolerance_minutes),
        )


def parse(line: bytes, limits: Limits) -> Event | Rejection:
    """Decide one line of NDJSON, a canonical event or a CloudEvent 1.0 in structured mode."""
    try:
        return _parse(line, limits)
    except Refused as refused:
        return Rejection(refused.reason, refused.detail)


def from_row(row: Mapping[str, object], limits: Limits) -> Event | Rejection:
    """Decide one row of a table (CSV, Parquet) by its columns; None stands for an absent value.

    ``occurred_at`` is text or a datetime with a zone, ``properties`` the text of a JSON object,
    ``void`` a bool or the text true or false. Bytes stand for text that is not UTF-8.
    """
    try:
        return _from_row(row, limits)
    except Refused as refused:
        return Rejection(refused.reason, refused.detail)


def properties_text(text: str) -> str:
    """The canonical text of properties given as JSON text. Raises Refused."""
    raw = text.encode()
    if len(raw) > MAX_LINE_BYTES:
        raise _too_long()
    properties = canonical.decode(raw)
    if type(properties) is not dict:
        raise Refused(Reason.WRONG_TYPE, "properties must hold the text of a JSON object")
    written = canonical.object_text(properties, raw, "properties")
    canonical.refuse_duplicate_keys(raw, written.count(":"))
    return written


def _parse(line: bytes, limits: Limits) -> Event:
    if len(line) > MAX_LINE_BYTES:
        raise _too_long()
    fields = canonical.decode(line)
    if type(fields) is not dict:
        raise Refused(
            Reason.NOT_AN_OBJECT, "the line is JSON, but not an object; send one object a line"
        )
    if "specversion" in fields:
        return _cloud_event(fields, line, limits)
    return _canonical_event(fields, line, limits)


def _too_long() -> Refused:
    return Refused(Reason.LINE_TOO_LONG, TOO_LONG)


def _canonical_event(fields: dict[str, object], line: bytes, limits: Limits) -> Event:
    tenant_id = _text(fields.get("tenant_id"), "tenant_id")
    event_type = _text(fields.get("event_type"), "event_type")
    instant = _instant(fields.get("occurred_at"), "occurred_at")
    correlation_id = _text(fields.get("correlation_id"), "correlation_id")
    properties: object = fields.get("properties", {})
    if type(properties) is not dict:
        raise Refused(Reason.WRONG_TYPE, "properties must be an object; leave it out for none")
    written = canonical.object_text(properties, line, "properties")
    quantity = canonical.decimal_of(fields.get("quantity", 1), "quantity")
    void = fields.get("void", False)
    if type(void) is not bool:
        raise Refused(Reason.WRONG_TYPE, "void must be true or false; leave it out for false")
    unknown = next((name for name in fields if name not in FIELDS), None)
    if unknown is not None:
        raise Refused(
            Reason.UNKNOWN_FIELD,
            f"{unknown[:60]!r} is not a field of an event; correct its name or move it into"
            " properties",
        )
    canonical.refuse_duplicate_keys(line, canonical.count_colons(fields))
    _check_range(instant, limits)
    return Event(tenant_id, event_type, instant, correlation_id, quantity, written, void)


def _cloud_event(fields: dict[str, object], line: bytes, limits: Limits) -> Event:
    if fields["specversion"] != "1.0":
        raise Refused(Reason.INVALID_CLOUDEVENT, 'specversion must be the text "1.0"')
    tenant_id = _text(fields.get("subject"), "subject")
    event_type = _text(fields.get("type"), "type")
    instant = _instant(fields.get("time"), "time")
    correlation_id = _source_and_id(fields)
    quantity, properties = _data(fields, line)
    void = fields.get("void")
    if void is not None and type(void) is not bool:
        raise Refused(Reason.WRONG_TYPE, "void must be true or false")
    for name, value in fields.items():
        if name in _NOT_OF_A_CLOUD_EVENT:
            raise Refused(
                Reason.UNKNOWN_FIELD, f"a CloudEvent has its {name} elsewhere; see its mapping"
            )
        if name != "data" and isinstance(value, (dict, list)):
            raise Refused(Reason.INVALID_CLOUDEVENT, f"attribute {name[:60]!r} must not be nested")
    canonical.refuse_duplicate_keys(line, canonical.count_colons(fields))
    _check_range(instant, limits)
    return Event(tenant_id, event_type, instant, correlation_id, quantity, properties, bool(void))


def _source_and_id(fields: dict[str, object]) -> str:
    source = _text(fields.get("source"), "source")
    if " " in source:
        raise Refused(Reason.INVALID_CLOUDEVENT, "source holds a space; percent-encode it")
    return _text(f"{source} {_text(fields.get('id'), 'id')}", "source and id together")


def _data(fields: dict[str, object], line: bytes) -> tuple[Decimal, str]:
    """Quantity and canonical properties of a CloudEvent's data; null counts as left out."""
    if fields.get("data_base64") is not None:
        raise Refused(
            Reason.INVALID_CLOUDEVENT, "data_base64 is not read; send data as a JSON object"
        )
    data = fields.get("data")
    if data is None:
        return _ONE, "{}"
    if type(data) is not dict:
        raise Refused(Reason.WRONG_TYPE, "data must be a JSON object; leave it out for none")
    quantity = _ONE
    properties = data
    if "quantity" in data:
        quantity = canonical.decimal_of(data["quantity"], "data.quantity")
        properties = {key: value for key, value in data.items() if key != "quantity"}
    return quantity, canonical.object_text(properties, line, "data")


def _from_row(row: Mapping[str, object], limits: Limits) -> Event:
    for field, value in row.items():
        if isinstance(value, bytes):
            raise Refused(Reason.INVALID_UTF8, f"{field} is not UTF-8; encode as UTF-8")
    tenant_id = _text(row["tenant_id"], "tenant_id")
    event_type = _text(row["event_type"], "event_type")
    occurred_at = row["occurred_at"]
    instant = (
        occurred_at if isinstance(occurred_at, datetime) else _instant(occurred_at, "occurred_at")
    )
    correlation_id = _text(row["correlation_id"], "correlation_id")
    written = row.get("properties")
    properties = "{}" if written is None else properties_text(str(written))
    number = row.get("quantity")
    quantity = _ONE if number is None else canonical.decimal_of(number, "quantity")
    void = row.get("void")
    void = void.lower() if isinstance(void, str) else void
    if void not in _VOID_VALUES:
        raise Refused(Reason.WRONG_TYPE, "void must be true or false; leave it empty for false")
    _check_range(instant, limits)
    return Event(
        tenant_id, event_type, instant, correlation_id, quantity, properties, _VOID_VALUES[void]
    )


_ONE = Decimal(1)
_VOID_VALUES: dict[object, bool] = {
    None: False,
    True: True,
    False: False,
    "true": True,
    "false": False,
}
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise _not_text(value, field)
    if not value:
        raise Refused(
            Reason.EMPTY_TEXT, f"{field} is empty; it must have 1 to {MAX_TEXT_BYTES} bytes"
        )
    if CONTROL_CHARACTER.search(value):
        raise Refused(Reason.CONTROL_CHARACTER, f"{field} holds a control character; remove it")
    if len(value.encode()) > MAX_TEXT_BYTES:
        raise Refused(
            Reason.TEXT_TOO_LONG,
            f"{field} has more than {MAX_TEXT_BYTES} bytes of UTF-8; shorten it",
        )
    return value


def _not_text(value: object, field: str) -> Refused:
    if value is None:
        return Refused(Reason.MISSING_FIELD, f"{field} is required; send it with every event")
    return Refused(Reason.WRONG_TYPE, f"{field} must be a text; put it in quotes")


_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6}(\d*))?"
    r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


def _instant(value: object, field: str) -> datetime:
    """The instant of an RFC 3339 text, UTC; digits beyond the microsecond are cut off, never rounded."""
    if not isinstance(value, str):
        raise _not_text(value, field)
    match = _INSTANT.fullmatch(value)
    if match is None:
        raise Refused(
            Reason.INVALID_TIME,
            f"{field} must be an instant with its offset, as 2026-01-31T13:05:00.25Z; leap seconds"
            " are sent as :59",
        )
    if match[1]:
        value = value[: match.start(1)] + value[match.end(1) :]
    try:
        instant = datetime.fromisoformat(value.upper())
        return instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refused(
            Reason.INVALID_TIME, f"{field} is no date of the calendar; correct it"
        ) from None


def _check_range(instant: datetime, limits: Limits) -> None:
    if instant < limits.earliest:
        raise Refused(
            Reason.TOO_EARLY,
            f"occurred_at lies before {limits.earliest:%Y-%m-%d}; check the producer's clock, or lower"
            " METERING_EARLIEST_EVENT_DATE",
        )
    if instant >= limits.end:
        raise Refused(
            Reason.IN_THE_FUTURE,
            f"occurred_at is not before {limits.end:%Y-%m-%dT%H:%M:%SZ}, the end of the landing hour"
            " and its tolerance; check the producer's clock, or drop it in a later hour",
        )
