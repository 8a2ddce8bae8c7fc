"""An independent judge of records: plain Python, which knows the rules and nothing of the code.

A record is accepted with exact values, or rejected; then the verdict holds every reason that is
true of the record, any of which may be given for it.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

MAX_RECORD_BYTES = 1 << 20
KEPT_BYTES = 4096
BOM = b"\xef\xbb\xbf"
BLANKS = b" \t\r"
FIELDS = {
    *("tenant_id", "event_type", "occurred_at", "correlation_id"),
    *("quantity", "properties", "void"),
}
EPOCH_DAY = date(1970, 1, 1).toordinal()


class Accepted(NamedTuple):
    """An event in canonical form: the instant in microseconds since 1970, the rest as text."""

    tenant_id: str
    event_type: str
    instant: int
    correlation_id: str
    quantity: str
    properties: str
    void: bool

    @property
    def fingerprint(self) -> uuid.UUID:
        return _hash(self.tenant_id, self.event_type, str(self.instant), self.correlation_id)

    @property
    def payload_hash(self) -> uuid.UUID:
        return _hash(self.quantity, self.properties)


class Rejected(NamedTuple):
    """No valid event, for any of these reasons."""

    reasons: frozenset[str]


Verdict = Accepted | Rejected


class Judged(NamedTuple):
    """A record of a file: the number of its line, its bytes (None if it has none), its fate."""

    line: int
    raw: bytes | None
    verdict: Verdict

    def keeps(self, stored: bytes) -> bool:
        """Whether this is what is to be stored of the record if it is rejected."""
        if self.raw is None:
            return bool(stored)
        return stored == (self.raw if len(self.raw) <= MAX_RECORD_BYTES else self.raw[:KEPT_BYTES])


class Instant(NamedTuple):
    """An instant that a column holds as such, in microseconds since 1970, cut off downwards."""

    microseconds: int


@dataclass(frozen=True)
class Number:
    """A number of a JSON document, as it stands there."""

    literal: str


class Pairs(list[tuple[str, object]]):
    """An object of a JSON document, its keys as they stand there, twice if they do."""


@dataclass(frozen=True)
class Judge:
    """Decides the records of one landing hour. ``end`` is exclusive; both in microseconds."""

    earliest: int
    end: int

    @classmethod
    def of_hour(cls, landed_hour: datetime, earliest: date, tolerance_minutes: int) -> "Judge":
        """The limits of a landing hour: its end and the tolerance, whatever the clock says."""
        hour = int(landed_hour.astimezone(UTC).timestamp())
        return cls(
            (earliest.toordinal() - EPOCH_DAY) * 86_400_000_000,
            (hour + 3600 + tolerance_minutes * 60) * 1_000_000,
        )

    def lines(self, content: bytes) -> Iterator[Judged]:
        """The records of NDJSON."""
        lines = content.removeprefix(BOM).split(b"\n")
        for number, raw in enumerate(lines, 1):
            if not _is_blank(raw):
                yield Judged(number, raw, self.line(raw))

    def line(self, raw: bytes) -> Verdict:
        """One line of NDJSON that is not blank."""
        if len(raw) > MAX_RECORD_BYTES:
            return Rejected(frozenset({"line_too_long"}))
        faults: set[str] = set()
        document = _document(_decoded(raw, faults), faults)
        if document is None:
            return Rejected(frozenset(faults))
        if not isinstance(document, Pairs):
            return Rejected(frozenset(faults | {"not_an_object"}))
        fields = dict(document)
        if len(fields) < len(document):
            # Of a key that stands twice either value may have been looked at.
            self._event(dict(reversed(document)), faults)
        event = self._event(fields, faults)
        return Rejected(frozenset(faults)) if faults or event is None else event

    def row(self, cells: Mapping[str, object]) -> Verdict:
        """One row of a table. None is absent; bytes are no UTF-8; an instant is an Instant."""
        faults: set[str] = set()
        if any(isinstance(value, bytes) for value in cells.values()):
            faults.add("invalid_utf8")
        sizes = [len(value.encode()) for value in cells.values() if isinstance(value, str)]
        if sum(sizes) > MAX_RECORD_BYTES:
            faults.add("line_too_long")
        quantity, properties, void = (cells.get(x) for x in ("quantity", "properties", "void"))
        if isinstance(void, str) and void.lower() in ("true", "false"):
            void = void.lower() == "true"
        document: object = None if properties is None else _document(str(properties), faults)
        event = self._facts(
            (cells["tenant_id"], cells["event_type"]),
            cells["occurred_at"],
            (cells["correlation_id"],),
            Number("1") if quantity is None else quantity,
            Pairs() if document is None else document,
            False if void is None else void,
            faults,
        )
        return Rejected(frozenset(faults)) if faults or event is None else event

    def csv(self, content: bytes) -> list[Judged] | None:
        """The records of a CSV file; None if its header makes it unreadable."""
        lines = content.removeprefix(BOM).split(b"\n")
        if lines[-1] == b"":
            lines.pop()
        header, position = _csv_record(lines, 0)
        if (
            not isinstance(header, list)
            or len(set(header)) < len(header)
            or not {*FIELDS} - {"quantity", "properties", "void"} <= {*header} <= FIELDS
        ):
            return None
        columns = [str(name) for name in header]
        judged = []
        while position < len(lines):
            cells, following = _csv_record(lines, position)
            raw = b"\n".join(lines[position:following])
            if not _is_blank(raw):
                judged.append(Judged(position + 1, raw, self._csv_row(columns, cells, raw)))
            position = following
        return judged

    def _csv_row(self, columns: list[str], cells: list[str | bytes] | None, raw: bytes) -> Verdict:
        if len(raw) > MAX_RECORD_BYTES:
            return Rejected(frozenset({"line_too_long"}))
        if cells is None or len(cells) != len(columns):
            return Rejected(frozenset({"invalid_csv"}))
        return self.row({c: cell or None for c, cell in zip(columns, cells, strict=True)})

    def _event(self, fields: dict[str, object], faults: set[str]) -> Accepted | None:
        if "specversion" in fields:
            return self._cloud_event(fields, faults)
        if fields.keys() - FIELDS:
            faults.add("unknown_field")
        return self._facts(
            (fields.get("tenant_id"), fields.get("event_type")),
            fields.get("occurred_at"),
            (fields.get("correlation_id"),),
            fields.get("quantity", Number("1")),
            fields.get("properties", Pairs()),
            fields.get("void", False),
            faults,
        )

    def _cloud_event(self, fields: dict[str, object], faults: set[str]) -> Accepted | None:
        if fields["specversion"] != "1.0" or fields.get("data_base64") is not None:
            faults.add("invalid_cloudevent")
        if any(isinstance(fields[name], list) for name in fields if name != "data"):
            faults.add("invalid_cloudevent")
        if fields.keys() & FIELDS - {"void"}:
            faults.add("unknown_field")
        source = fields.get("source")
        if isinstance(source, str) and " " in source:
            faults.add("invalid_cloudevent")
        data = fields.get("data")
        properties: object = Pairs() if data is None else data
        quantity: object = Number("1")
        if isinstance(properties, Pairs):
            inside = dict(properties)
            quantity = inside.pop("quantity", quantity)
            properties = Pairs(inside.items())
        void = fields.get("void")
        return self._facts(
            (fields.get("subject"), fields.get("type")),
            fields.get("time"),
            (source, fields.get("id")),
            quantity,
            properties,
            False if void is None else void,
            faults,
        )

    def _facts(
        self,
        names: tuple[object, object],
        time: object,
        correlation: tuple[object, ...],
        quantity: object,
        properties: object,
        void: object,
        faults: set[str],
    ) -> Accepted | None:
        for text in (*names, *correlation):
            _name(text, faults)
        correlation_id = " ".join(part for part in correlation if isinstance(part, str))
        if len(correlation_id.encode("utf-8", "surrogatepass")) > 255:
            faults.add("text_too_long")
        instant = self._instant(time, faults)
        number = _quantity(quantity, faults)
        if isinstance(properties, Pairs):
            _properties(properties, faults)
        else:
            faults.add("wrong_type")
        if not isinstance(void, bool):
            faults.add("wrong_type")
        if faults:
            return None
        tenant_id, event_type = map(str, names)
        return Accepted(
            *(tenant_id, event_type, instant, correlation_id),
            *(number, _canonical(properties), bool(void)),
        )

    def _instant(self, value: object, faults: set[str]) -> int:
        if isinstance(value, Instant):
            microseconds: int | None = value.microseconds
        elif isinstance(value, str):
            microseconds = _microseconds(value)
        else:
            faults.add("missing_field" if value is None else "wrong_type")
            return 0
        if microseconds is None or not FIRST_INSTANT <= microseconds < LAST_INSTANT:
            faults.add("invalid_time")
        if microseconds is None:
            return 0
        if microseconds < self.earliest:
            faults.add("too_early")
        if microseconds >= self.end:
            faults.add("in_the_future")
        return microseconds


def _is_blank(raw: bytes) -> bool:
    """No record; but what is too long is one, since nobody reads it to its end."""
    return len(raw) <= MAX_RECORD_BYTES and not raw.strip(BLANKS)


def _hash(*parts: str) -> uuid.UUID:
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return uuid.UUID(bytes=digest[:16])


# JSON


def _decoded(raw: bytes, faults: set[str]) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        faults.add("invalid_utf8")
        return raw.decode(errors="replace")


def _document(text: str, faults: set[str]) -> object:
    """The document; None, with a fault, if there is none. The word null is not None, but NULL."""
    deep = {"too_deep"} if text.count("[") + text.count("{") > 32 else set()
    try:
        document = _read(text)
    except RecursionError:
        faults |= {"too_deep", "invalid_json"}
        return None
    except ValueError:
        faults |= {"invalid_json"} | deep
        # A reader that goes from left to right may have met these before it met the fault.
        if re.search(r"\\u[dD][89a-fA-F]", text):
            faults.add("lone_surrogate")
        if re.search(r"[0-9]{19}|[eE][+-]?[0-9]{2}", text):
            faults.add("number_out_of_range")
        return None
    _document_faults(document, faults)
    return NULL if document is None else document


def _document_faults(document: object, faults: set[str]) -> None:
    for value, depth in _walk(document):
        if isinstance(value, str):
            if not value.isascii() and _has_surrogate(value):
                faults.add("lone_surrogate")
        elif isinstance(value, Number):
            # Elsewhere than in quantity and properties a reader may still balk at the longest ones.
            if len(value.literal) > 4000 and value.literal.lstrip("-").isdigit():
                faults.add("number_out_of_range")
        elif isinstance(value, Pairs) and len({key for key, _ in value}) < len(value):
            faults.add("duplicate_key")
        if depth > 200:
            faults.add("too_deep")


NULL = object()


def _read(text: str) -> object:
    return json.loads(
        text,
        object_pairs_hook=Pairs,
        parse_int=Number,
        parse_float=Number,
        parse_constant=_no_constant,
    )


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _walk(document: object) -> Iterator[tuple[object, int]]:
    """Every value and key with its depth, that of the document being 1; without recursion."""
    waiting = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        if isinstance(value, Pairs):
            for key, inside in value:
                yield key, depth + 1
                waiting.append((inside, depth + 1))
        elif isinstance(value, list):
            waiting += [(inside, depth + 1) for inside in value]


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _properties(properties: Pairs, faults: set[str]) -> None:
    for value, depth in _walk(properties):
        if isinstance(value, list) and depth > 32:
            faults.add("too_deep")
        if isinstance(value, str) and "\0" in value:
            faults.add("nul_character")
        if isinstance(value, Number):
            _plain(value.literal, faults)


def _canonical(value: object) -> str:
    if isinstance(value, Pairs):
        pairs = sorted(value, key=lambda pair: pair[0].encode())
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(each)}" for key, each in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, Number):
        return _plain(value.literal, set())
    return json.dumps(value, ensure_ascii=False)


# Values


def _plain(literal: str, faults: set[str]) -> str:
    """A number without exponent and without trailing zeros."""
    mantissa = re.split("[eE]", literal)[0]
    if not mantissa.strip("-0."):
        return "0"
    try:
        sign, digits, exponent = Decimal(literal).as_tuple()
    except InvalidOperation:
        faults.add("number_out_of_range")
        return ""
    assert isinstance(exponent, int)
    significant = "".join(map(str, digits)).lstrip("0")
    exponent += len(significant) - len(significant.rstrip("0"))
    significant = significant.rstrip("0")
    if len(significant) + exponent > 20 or -exponent > 18:
        faults.add("number_out_of_range")
        return ""
    return f"{Decimal((sign, tuple(map(int, significant)), exponent)):f}"


def _quantity(value: object, faults: set[str]) -> str:
    if isinstance(value, float):
        faults.add("inexact_number")
    elif isinstance(value, bool):
        faults.add("wrong_type")
    elif isinstance(value, Number):
        return _plain(value.literal, faults)
    elif isinstance(value, int | Decimal):
        return _plain(str(value), faults)
    elif isinstance(value, str):
        try:
            number = _read(value) if value.isascii() and value == value.strip() else None
        except (ValueError, RecursionError):
            number = None
        if isinstance(number, Number):
            return _plain(number.literal, faults)
        faults.add("invalid_number")
    else:
        faults.add("wrong_type")
    return ""


def _name(value: object, faults: set[str]) -> None:
    if not isinstance(value, str):
        faults.add("missing_field" if value is None else "wrong_type")
        return
    if not value:
        faults.add("empty_text")
    if any(ord(each) < 32 or 127 <= ord(each) < 160 for each in value):
        faults.add("control_character")
    if len(value.encode("utf-8", "surrogatepass")) > 255:
        faults.add("text_too_long")


def _day_microseconds(day: date) -> int:
    return (day.toordinal() - EPOCH_DAY) * 86_400_000_000


FIRST_INSTANT = _day_microseconds(date.min)
LAST_INSTANT = _day_microseconds(date.max) + 86_400_000_000
TIME = re.compile(
    "([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})([.][0-9]+)?"
    "([Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def _microseconds(text: str) -> int | None:
    """Since 1970 in UTC, by whole numbers only; None for what is no instant."""
    match = TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, _, sign, offset_hour, offset_minute = match.groups()[6:]
    offset = (int(offset_hour or 0), int(offset_minute or 0))
    if hour > 23 or minute > 59 or second > 59 or offset[0] > 23 or offset[1] > 59:
        return None
    try:
        days = _day_microseconds(date(year, month, day))
    except ValueError:
        return None
    minutes = hour * 60 + minute - (offset[0] * 60 + offset[1]) * (-1 if sign == "-" else 1)
    microsecond = int(((fraction or ".")[1:] + "000000")[:6])
    return days + (minutes * 60 + second) * 1_000_000 + microsecond


# CSV


def _csv_record(lines: list[bytes], start: int) -> tuple[list[str | bytes] | None, int]:
    """The cells of the record that starts at a line, None if it has none, and the next one's start.

    A record whose quotes go wrong is its first line only, unless it has grown too long by then.
    """
    size = -1
    cells = [bytearray()]
    state = "start"
    for position in range(start, len(lines)):
        size += len(lines[position]) + 1
        state = _csv_line(lines[position] + b"\n", state, cells)
        if size > MAX_RECORD_BYTES:
            return None, position + 1
        if state == "bad":
            return None, start + 1
        if state == "end":
            return [_csv_cell(bytes(cell)) for cell in cells], position + 1
    return None, start + 1


def _csv_cell(cell: bytes) -> str | bytes:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell


def _csv_line(line: bytes, state: str, cells: list[bytearray]) -> str:
    """Goes on with a record by one line that ends in a newline; the state it leaves."""
    for each in line:
        character = bytes([each])
        if state == "quoted":
            state = _quoted(character, cells)
        elif character == b'"' and state in ("start", "closing"):
            if state == "closing":
                cells[-1] += character
            state = "quoted"
        else:
            state = _unquoted(character, state, cells)
        if state == "bad":
            break
    return state


def _quoted(character: bytes, cells: list[bytearray]) -> str:
    if character == b'"':
        return "closing"
    cells[-1] += character
    return "quoted"


def _unquoted(character: bytes, state: str, cells: list[bytearray]) -> str:
    if character in b"\r\n":
        return "end"
    if state in ("end", "closing") and (state, character) != ("closing", b","):
        return "bad"
    if character == b",":
        cells.append(bytearray())
        return "start"
    cells[-1] += character
    return "plain"
