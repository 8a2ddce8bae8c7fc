"""Canonical text of numbers and JSON, the form in which payloads are stored, compared and hashed.

As in RFC 8785, but keys stand in UTF-8 byte order at every depth and numbers are plain decimals
without trailing zeros. Two texts that say the same thing have the same canonical text; what could
not be kept exactly (too many digits, a key given twice) is refused, never rounded or dropped.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NoReturn, TypeVar

import msgspec

from metering_pipeline.landing.reasons import Reason, Refused

T = TypeVar("T")

MAX_WHOLE_DIGITS = 20
MAX_FRACTION_DIGITS = 18
MAX_DEPTH = 32
"""Objects and arrays inside each other, the properties object itself being the first."""

_SHOWN = 60
"""Characters of a name that a message shows."""

_INTEGER_LIMIT = 10**MAX_WHOLE_DIGITS
_DIGITS_ALLOWED = (
    f"a number has at most {MAX_WHOLE_DIGITS} digits before and {MAX_FRACTION_DIGITS} after the point;"
    " send fewer digits"
)
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?)0*([0-9]+))?")


class OutOfRange:
    """Stands in a decoded document for a number with too many digits, until its field is known."""


def number_text(literal: str) -> str:
    """The canonical text of a number written as JSON writes numbers.

    Raises Refused: ``invalid_number`` or ``number_out_of_range``.
    """
    match = _NUMBER.fullmatch(literal)
    if match is None:
        raise Refused(Reason.INVALID_NUMBER, "not a number; write a plain decimal such as 12.5")
    sign, whole, fraction, exponent_sign, exponent = match.groups("")
    digits = (whole + fraction).lstrip("0")
    leading_zeros = len(whole) + len(fraction) - len(digits)
    digits = digits.rstrip("0")
    if not digits:
        return "0"
    if len(exponent) > 7:
        raise Refused(Reason.NUMBER_OUT_OF_RANGE, _DIGITS_ALLOWED)
    point = len(whole) - leading_zeros + int(f"{exponent_sign}{exponent or 0}")
    if point > MAX_WHOLE_DIGITS or len(digits) - point > MAX_FRACTION_DIGITS:
        raise Refused(Reason.NUMBER_OUT_OF_RANGE, _DIGITS_ALLOWED)
    return sign + _with_point(digits, point)


def _with_point(digits: str, point: int) -> str:
    if point <= 0:
        return "0." + "0" * -point + digits
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return digits[:point] + "." + digits[point:]


def _float_hook(literal: str) -> object:
    # Up to 19 characters without an exponent can exceed neither limit; the decoder has checked the rest.
    if len(literal) <= 19 and "e" not in literal and "E" not in literal:
        text = literal.rstrip("0").rstrip(".")
        return msgspec.Raw(b"0" if text == "-0" else text.encode())
    try:
        return msgspec.Raw(number_text(literal).encode())
    except Refused:
        return OutOfRange()


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder of documents of this type that reads numbers as ``decode`` does."""
    return msgspec.json.Decoder(kind, float_hook=_float_hook)


_decode = msgspec.json.Decoder(float_hook=_float_hook).decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def decode(text: bytes) -> object:
    """One JSON document. Integers come as int, other numbers as msgspec.Raw of canonical text (or
    as OutOfRange). Keys given twice are not seen here: see ``refuse_duplicate_keys``.

    Raises Refused: ``invalid_utf8``, ``invalid_json``, ``lone_surrogate``, ``too_deep``,
    ``number_out_of_range``.
    """
    try:
        return _decode(text)
    except RecursionError:
        raise _too_deep() from None
    except msgspec.ValidationError:
        raise Refused(Reason.NUMBER_OUT_OF_RANGE, _DIGITS_ALLOWED) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(text, str(error)) from None


def object_text(properties: dict[str, object], raw: bytes, field: str) -> str:
    """The canonical text of a decoded object; ``raw`` is the text it was decoded from.

    Raises Refused: ``number_out_of_range``, ``nul_character``, ``too_deep``, naming the place by
    its path from ``field``.
    """
    if b"\\" in raw:
        _check(properties, field, 1)
    else:
        # The common object is flat, and without an escape no text can hold a NUL.
        for value in properties.values():
            kind = type(value)
            if kind is not str and kind is not int:
                _check(properties, field, 1)
                break
            if kind is int and not -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
                _check(properties, field, 1)
    return _encode_sorted(properties).decode()


def _check(value: object, path: str, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, OutOfRange) or (
        isinstance(value, int) and not -_INTEGER_LIMIT < value < _INTEGER_LIMIT
    ):
        raise Refused(Reason.NUMBER_OUT_OF_RANGE, f"{path}: {_DIGITS_ALLOWED}")
    elif isinstance(value, (dict, list)):
        if depth > MAX_DEPTH:
            raise _too_deep()
        for inner_path, each in _inside(value, path):
            _check(each, inner_path, depth + 1)


def _inside(value: dict[str, object] | list[object], path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield f"{path}[{index}]", each
        return
    for key, each in value.items():
        _check_text(key, f"a key of {path}")
        yield f"{path}.{key[:_SHOWN]}", each


def _check_text(text: str, path: str) -> None:
    if "\0" in text:
        raise Refused(
            Reason.NUL_CHARACTER, f"{path} holds U+0000, which the database cannot keep; remove it"
        )


def refuse_duplicate_keys(raw: bytes, colons: int) -> None:
    """Refuse a key that stands twice in one object, at any depth of the document ``raw``.

    ``colons`` is the number of keys of the decoded document plus the colons inside its texts.
    Each key of ``raw`` brings one colon of its own, so equal numbers prove that no key was lost;
    only an escaped colon could hide one, so a text with escapes is read again, exactly.
    """
    if raw.count(b":") != colons or b"\\" in raw:
        json.loads(raw, object_pairs_hook=_distinct_keys, parse_int=str, parse_float=str)


def count_colons(document: object) -> int:
    """The colons of a decoded document; -1, which equals no number, if it cannot be written."""
    try:
        return _encode(document).count(b":")
    except TypeError:
        return -1


def _distinct_keys(pairs: list[tuple[str, object]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Refused(
            Reason.DUPLICATE_KEY, f"key {twice[:_SHOWN]!r} stands twice in one object; send it once"
        )


def decimal_of(value: object, field: str) -> Decimal:
    """The exact decimal of a decoded number, or of a text that holds one.

    Raises Refused: ``wrong_type``, ``invalid_number``, ``number_out_of_range``, ``inexact_number``.
    """
    if type(value) is int and -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
        return Decimal(value)
    if isinstance(value, msgspec.Raw):
        return Decimal(bytes(value).decode())
    try:
        return Decimal(number_text(_literal(value)))
    except Refused as refused:
        raise Refused(refused.reason, f"{field}: {refused.detail}") from None


def _literal(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float):
        raise Refused(
            Reason.INEXACT_NUMBER, "a binary float is inexact; send a decimal, an integer or a text"
        )
    if isinstance(value, OutOfRange) or (isinstance(value, int) and not isinstance(value, bool)):
        raise Refused(Reason.NUMBER_OUT_OF_RANGE, _DIGITS_ALLOWED)
    raise Refused(
        Reason.WRONG_TYPE, "must be a number, or a text that holds one; leave it out for 1"
    )


def _too_deep() -> Refused:
    return Refused(
        Reason.TOO_DEEP, f"objects and arrays may nest {MAX_DEPTH} deep; flatten the properties"
    )


def _not_json(text: bytes, message: str) -> Refused:
    """Tell apart what the decoder reports alike."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        return Refused(Reason.INVALID_UTF8, f"byte {error.start} is not UTF-8; encode as UTF-8")
    try:
        json.loads(decoded, parse_int=str, parse_float=str, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return Refused(Reason.INVALID_JSON, f"not a JSON document: {message}; send one a line")
    # Python's reader takes a surrogate without its pair, the only thing in which the two differ.
    return Refused(
        Reason.LONE_SURROGATE, "an escaped surrogate lacks its pair; send whole characters"
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
