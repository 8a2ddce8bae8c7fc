"""The rules of an event over whole columns: what is in no doubt is decided thousands of records at once.

Some records come out as columns, with a mask of the rows that are certainly valid events, or as None:
then something among them is in doubt. Doubt is no decision: whatever is not certainly good is looked at
record by record by the exact rules in ``events``. So the rules here may be too strict, never too lax.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metering_pipeline.landing import canonical, events
from metering_pipeline.landing.canonical import (
    MAX_DEPTH,
    MAX_FRACTION_DIGITS,
    MAX_WHOLE_DIGITS,
)
from metering_pipeline.landing.events import MAX_LINE_BYTES, MAX_TEXT_BYTES, Limits
from metering_pipeline.landing.reasons import Refused

Mask = np.ndarray[Any, np.dtype[np.bool_]]

QUANTITY = pa.decimal128(MAX_WHOLE_DIGITS + MAX_FRACTION_DIGITS, MAX_FRACTION_DIGITS)
INSTANT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        ("tenant_id", pa.string()),
        ("event_type", pa.string()),
        ("occurred_at", INSTANT),
        ("correlation_id", pa.string()),
        ("quantity", QUANTITY),
        ("properties", pa.string()),
        ("void", pa.bool_()),
    ]
)

_NAMES = ("tenant_id", "event_type", "correlation_id")
_CONTROL_CHARACTERS = r"[\x00-\x1f\x7f\x{80}-\x{9f}]"
_DECIMAL = rf"^-?(0|[1-9][0-9]{{0,{MAX_WHOLE_DIGITS - 1}}})(\.[0-9]{{1,{MAX_FRACTION_DIGITS}}})?$"
_TOO_MANY_DIGITS = rf"[0-9]{{{MAX_WHOLE_DIGITS + 1}}}"
_RFC_3339 = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_BEYOND_MICROSECONDS = r"^(.{19}\.[0-9]{6})[0-9]+"


class Columns(NamedTuple):
    """Some records by column, in the order of SCHEMA; ``good`` marks those that are certainly valid events."""

    arrays: list[pa.Array]
    good: Mask


# Lines


class _Line(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A line as nearly every one is. The quantity keeps the digits that were sent."""

    tenant_id: str
    event_type: str
    occurred_at: str
    correlation_id: str
    quantity: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    properties: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    void: bool | msgspec.UnsetType = msgspec.UNSET


_decode_lines = canonical.decoder(_Line).decode_lines
_decode_objects = canonical.decoder(dict[str, Any]).decode_lines
_encode_lines = msgspec.json.Encoder(order="sorted").encode_lines
_NOT_DECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NOT_ENCODED = (TypeError, RecursionError)  # an OutOfRange among the properties; too deep


def of_lines(block: bytes, limits: Limits) -> Columns | None:
    """Lines of NDJSON; None if any of them is in doubt."""
    # Without an escape no text can hold a NUL, a lone surrogate, a line's end or a hidden colon.
    if b"\\" in block:
        return None
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    rows = _count_objects(block)
    if rows is None:
        return None
    with _collector_at_rest():
        try:
            lines = _decode_lines(block)
            return _of_decoded(lines, block, limits) if len(lines) == rows else None
        except (*_NOT_DECODED, *_NOT_ENCODED, pa.ArrowInvalid):
            return None


def _count_objects(block: bytes) -> int | None:
    """The lines of a block; None if one of them is too long or may not be one object.

    The decoder takes an object that reaches over two lines, and two objects in one line. But if every
    line begins and ends with a brace none can reach over its line: no comma stands between the two.
    """
    characters = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts
    if lengths.min() < len("{}") or lengths.max() >= MAX_LINE_BYTES:  # a CR may have gone
        return None
    braced = (characters[starts] == ord("{")) & (characters[ends - 1] == ord("}"))
    return len(ends) if braced.all() else None


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Thousands of properties are objects that Python's collector of cycles would visit again and again,
    at more cost than their decoding; they hold no cycles, and are gone when this ends."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _of_decoded(lines: Sequence[_Line], block: bytes, limits: Limits) -> Columns | None:
    rows = len(lines)
    names = [_joined([getattr(line, name) for line in lines]) for name in _NAMES]
    instants = _joined([line.occurred_at for line in lines])
    quantities = [line.quantity for line in lines]
    objects = [line.properties for line in lines]
    voids = [line.void for line in lines]
    written = _encode_lines([{} if each is msgspec.UNSET else each for each in objects])
    # Each key of a line brings one colon of its own. A key given twice is decoded once, so its line has
    # more colons than what was decoded from it has, and no line can have fewer: equal sums, equal lines.
    keys = len(_Line.__struct_fields__) * rows
    keys -= sum(values.count(msgspec.UNSET) for values in (quantities, objects, voids))
    if _count(block, ":") != keys + sum(_count(each, ":") for each in (*names, instants, written)):
        return None
    literals = b"\n".join([b"1" if each is msgspec.UNSET else each for each in quantities]) + b"\n"
    tenant_ids, event_types, correlation_ids = (_split(each, rows) for each in names)
    properties = _split(written, rows)
    good = np.ones(rows, bool)
    good &= _properties_in_bounds(properties, written)
    arrays = [
        tenant_ids,
        event_types,
        _instants(_split(instants, rows), good),
        correlation_ids,
        # a literal that is a text still has its quotes; inside them it can have none
        _decimals(pc.ascii_trim(_split(literals, rows), '"'), good),
        properties,
        pa.array([each is True for each in voids], pa.bool_()),
    ]
    # The decoder has refused the C0 characters, which JSON wants escaped.
    _check(arrays, good, limits, not block.isascii() or b"\x7f" in block)
    return Columns(arrays, good)


def _joined(texts: Sequence[str]) -> bytes:
    """Texts, none of which holds a newline, each with a newline after it."""
    return ("\n".join(texts) + "\n").encode()


def _split(joined: bytes, rows: int) -> pa.Array:
    """So many texts, each followed by a newline, as an array of strings."""
    ends = np.flatnonzero(np.frombuffer(joined, np.uint8) == ord("\n"))
    offsets = np.zeros(rows + 1, np.int32)
    offsets[1:] = ends + 1
    with_ends = [None, pa.py_buffer(offsets), pa.py_buffer(joined)]
    texts = pa.Array.from_buffers(pa.binary(), rows, with_ends)
    return pc.binary_slice(texts, 0, -1).cast(pa.string())


def _count(text: bytes, character: str) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(character)))


# Tables


def of_table(batch: pa.RecordBatch, limits: Limits) -> Columns | None:
    """Rows of a table whose columns have types that ``readers`` takes; None if some are in doubt."""
    rows = batch.num_rows
    good = np.ones(rows, bool)
    try:
        batch.validate(full=True)
        columns = {name: batch.column(name) for name in batch.schema.names}
        tenant_ids, event_types, correlation_ids = (
            columns[name].cast(pa.string()) for name in _NAMES
        )
        arrays = [
            tenant_ids,
            event_types,
            _instants(columns["occurred_at"], good),
            correlation_ids,
            _quantities(columns.get("quantity"), rows, good),
            _properties(columns.get("properties"), rows, good),
            _filled(columns.get("void"), pa.bool_(), False, rows),
        ]
    except pa.ArrowException:
        return None
    _check(arrays, good, limits)
    return Columns(arrays, good)


def _filled(array: pa.Array | None, kind: pa.DataType, value: object, rows: int) -> pa.Array:
    filling = pa.scalar(value, kind)
    return pa.repeat(filling, rows) if array is None else array.cast(kind).fill_null(filling)


def _quantities(array: pa.Array | None, rows: int, good: Mask) -> pa.Array:
    """Exact decimals, 1 where absent. Raises ArrowInvalid for floats."""
    if array is None or array.null_count == rows:
        return pa.repeat(pa.scalar(1, QUANTITY), rows)
    if pa.types.is_floating(array.type):
        raise pa.ArrowInvalid("floats are looked at one by one")
    if pa.types.is_decimal(array.type) or pa.types.is_integer(array.type):
        return _filled(array, QUANTITY, 1, rows)
    return _decimals(_filled(array, pa.string(), "1", rows), good)


def _properties(array: pa.Array | None, rows: int, good: Mask) -> pa.Array:
    """Canonical texts, {} where absent; clears ``good`` where there is none."""
    texts = _filled(array, pa.string(), "{}", rows)
    written = _written(texts)
    if written is not None:
        properties = _split(written, rows)
        good &= _properties_in_bounds(properties, written)
        return properties
    one_by_one = [_properties_text(text) for text in texts.to_pylist()]
    properties = pa.array(one_by_one, pa.string())
    good &= _true(properties.is_valid())
    return properties


def _written(texts: pa.Array) -> bytes | None:
    """JSON objects in canonical text, one a line; None if any of them is in doubt."""
    block = b"".join([text + b"\n" for text in texts.cast(pa.binary()).to_pylist()])
    if b"\\" in block or _count(block, "\n") != len(texts) or _count_objects(block) is None:
        return None
    with _collector_at_rest():
        try:
            objects = _decode_objects(block)
            written = _encode_lines(objects)
        except (*_NOT_DECODED, *_NOT_ENCODED):
            return None
        same = len(objects) == len(texts) and _count(written, ":") == _count(block, ":")
        return written if same else None


def _properties_text(text: str) -> str | None:
    try:
        return events.properties_text(text)
    except Refused:
        return None


# Both


def _instants(array: pa.Array, good: Mask) -> pa.Array:
    """Instants in UTC, cut off to the microsecond; clears ``good`` for texts that are in doubt.

    Raises ArrowInvalid for a text that is no date of the calendar.
    """
    if pa.types.is_timestamp(array.type):
        # The values count from 1970 in UTC whatever the zone; without it no zone's rules are asked for.
        naive = array.view(pa.timestamp(array.type.unit))
        return pc.floor_temporal(naive, unit="microsecond").cast(pa.timestamp("us")).view(INSTANT)
    texts = array.cast(pa.string())
    matches = pc.match_substring_regex(texts, _RFC_3339)
    if not _true(matches).all():
        texts = pc.replace_substring_regex(texts, _BEYOND_MICROSECONDS, r"\1")
        matches = pc.match_substring_regex(texts, _RFC_3339)
    good &= _true(matches)
    return pc.if_else(matches, texts, None).cast(INSTANT)


def _decimals(texts: pa.Array, good: Mask) -> pa.Array:
    """Exact decimals of numbers in plain writing; clears ``good`` for the rest."""
    matches = pc.match_substring_regex(texts, _DECIMAL)
    good &= _true(matches)
    return pc.if_else(matches, texts, None).cast(QUANTITY)


def _properties_in_bounds(properties: pa.Array, written: bytes) -> Mask:
    """Without a number of too many whole digits, and not nested too deep."""
    in_bounds = np.ones(len(properties), bool)
    if _has_digits_in_a_row(written, MAX_WHOLE_DIGITS + 1):
        in_bounds &= ~_true(pc.match_substring_regex(properties, _TOO_MANY_DIGITS))
    if _count(written, "{") + _count(written, "[") > len(properties):
        openings = pc.count_substring_regex(properties, r"[{\[]")
        in_bounds &= _true(pc.less_equal(openings, MAX_DEPTH))
    return in_bounds


def _has_digits_in_a_row(text: bytes, length: int) -> bool:
    """Whether so many digits follow each other anywhere; found by doubling, far cheaper than by a pattern."""
    runs = (np.frombuffer(text, np.uint8) - np.uint8(ord("0"))) < 10
    reached = 1
    while reached < length:
        step = min(reached, length - reached)
        runs = runs[:-step] & runs[step:]
        reached += step
    return bool(runs.any())


def _check(
    arrays: Sequence[pa.Array], good: Mask, limits: Limits, may_hold_controls: bool = True
) -> None:
    """Clear ``good`` where a name or the instant is not certainly in bounds."""
    tenant_ids, event_types, instants, correlation_ids = arrays[:4]
    for names in (tenant_ids, event_types, correlation_ids):
        lengths = pc.binary_length(names)
        good &= _true(pc.and_(pc.greater(lengths, 0), pc.less_equal(lengths, MAX_TEXT_BYTES)))
        if may_hold_controls:
            good &= ~_true(pc.match_substring_regex(names, _CONTROL_CHARACTERS))
    earliest, end = (pa.scalar(instant, INSTANT) for instant in limits)
    good &= _true(pc.and_(pc.greater_equal(instants, earliest), pc.less(instants, end)))


def _true(mask: pa.Array) -> Mask:
    return mask.fill_null(False).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
