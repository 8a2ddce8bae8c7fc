"""What a producer says that it sent: the control totals beside the files of a landing hour.

``_manifest.json``, or ``_manifest.<source>.json`` where several sources share an hour; the format is in
``docs/control-totals.md``. A manifest that is not exactly so is kept with what is wrong with it, field by
field, and nothing of it is taken.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import IO, NamedTuple, NoReturn, TypeVar

from metering_pipeline.landing.events import CONTROL_CHARACTER, MAX_TEXT_BYTES
from metering_pipeline.landing.sources import EXTENSIONS, manifest_source

MAX_BYTES = 4 << 20
"""A larger manifest is not read: some 25,000 files, more than an hour's folder should hold."""

MAX_PROBLEMS = 20
"""So many are kept; who mends these sees the next."""

T = TypeVar("T")


class NamedFile(NamedTuple):
    """A file that a manifest speaks for; size in bytes and SHA-256 in hex where it says them."""

    name: str
    size_bytes: int | None
    content_sha256: str | None


class Total(NamedTuple):
    """What the files named hold of an event type, copies and voids included. The digest is the exact sum of
    the fingerprints' low 64 bits, signed, where the manifest says it."""

    event_type: str
    event_count: int
    quantity: Decimal
    event_digest: int | None


@dataclass(frozen=True)
class Manifest:
    """A manifest as read; with problems (``field: what is wrong``) it has neither files nor totals.

    ``source`` is None where it cannot be told.
    """

    source: str | None
    files: tuple[NamedFile, ...] = ()
    totals: tuple[Total, ...] = ()
    problems: tuple[str, ...] = ()


def read_manifest(key: str, landed_hour: datetime, size_bytes: int, stream: IO[bytes]) -> Manifest:
    """Read and check the manifest of a landing hour; its name in the hour's folder is in ``key``."""
    name = key.rpartition("/")[2]
    if size_bytes > MAX_BYTES:
        problem = f"the manifest: has {size_bytes} bytes; at most {MAX_BYTES} are read"
        return Manifest(manifest_source(name), problems=(problem,))
    try:
        document = json.loads(
            stream.read(MAX_BYTES).decode(), object_pairs_hook=_Object, parse_int=_Number,
            parse_float=_Number, parse_constant=_no_constant,
        )  # fmt: skip
    except (ValueError, RecursionError) as error:
        problem = f"the manifest: is no JSON document in UTF-8: {error}"
        return Manifest(manifest_source(name), problems=(problem,))
    reading = _Reading()
    manifest = reading.manifest(document, name, landed_hour)
    if not reading.problems:
        return manifest
    return Manifest(
        manifest.source or manifest_source(name), problems=tuple(reading.problems[:MAX_PROBLEMS])
    )


class _Number(str):
    """A number as it is written, so that nothing of it is rounded."""

    __slots__ = ()


class _Object(list[tuple[str, object]]):
    """An object's keys and values as they are written, a key given twice included."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


@dataclass
class _Reading:
    """Goes through a document and notes what is wrong with which field."""

    problems: list[str] = field(default_factory=list)

    def manifest(self, document: object, name: str, landed_hour: datetime) -> Manifest:
        fields = self._fields(document, "", ("source", "landed_hour", "files", "totals"))
        source = self._text(fields, "source", "")
        expected = manifest_source(name)
        if source and expected and source != expected:
            self._note(
                "source", f"is {source}, but the file's name says {expected}; let them agree"
            )
        hour = self._text(fields, "landed_hour", "")
        folder = f"{landed_hour:%Y-%m-%dT%H}"
        if hour and hour != folder:
            self._note("landed_hour", f"is {hour}, but it lies in landed_hour={folder}; move it")
        files = self._list(fields, "files", self._file)
        totals = self._list(fields, "totals", self._total)
        self._distinct("files", "name", [each.name for each in files])
        self._distinct("totals", "event_type", [each.event_type for each in totals])
        return Manifest(source or None, files, totals)

    def _file(self, document: object, at: str) -> NamedFile:
        fields = self._fields(document, at, ("name",), ("size_bytes", "sha256"))
        name = self._text(fields, "name", at)
        if name and ("/" in name or name.startswith((".", "_")) or not name.endswith(EXTENSIONS)):
            self._note(
                f"{at}name",
                f"{name} is no name of an event file: it stands in the hour's folder itself, begins"
                f" with neither . nor _, and ends in one of {', '.join(EXTENSIONS)}",
            )
        size = self._number(fields, "size_bytes", at, *_COUNT)
        sha256 = self._text(fields, "sha256", at) or None
        if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
            self._note(f"{at}sha256", "must be 64 hexadecimal digits in small letters")
        return NamedFile(name, None if size is None else int(size), sha256)

    def _total(self, document: object, at: str) -> Total:
        fields = self._fields(document, at, ("event_type", "events", "quantity"), ("digest",))
        count = self._number(fields, "events", at, *_COUNT)
        quantity = self._number(fields, "quantity", at, *_QUANTITY, text_too=True)
        digest = self._number(fields, "digest", at, *_DIGEST, text_too=True)
        return Total(
            self._text(fields, "event_type", at),
            int(count or 0),
            Decimal(quantity or 0),
            None if digest is None else int(digest),
        )

    def _fields(
        self, document: object, at: str, required: Sequence[str], optional: Sequence[str] = ()
    ) -> Mapping[str, object]:
        """An object's fields, null ones left out as if they were not there."""
        if not isinstance(document, _Object):
            self._note(at.rstrip(".") or "the manifest", "must be a JSON object")
            return {}
        names = [name for name, _ in document]
        for name in dict.fromkeys(names):
            if name not in (*required, *optional):
                known = ", ".join((*required, *optional))
                self._note(
                    f"{at}{json.dumps(name[:60])}",
                    f"is no field of a manifest; known here: {known}",
                )
            elif names.count(name) > 1:
                self._note(f"{at}{name}", "stands twice in one object; write it once")
        fields = {name: value for name, value in document if value is not None}
        for name in required:
            if name not in fields:
                self._note(f"{at}{name}", "is missing; write it")
        return fields

    def _text(self, fields: Mapping[str, object], name: str, at: str) -> str:
        value = fields.get(name, "")
        if name not in fields:
            return ""
        if not isinstance(value, str) or isinstance(value, _Number):
            self._note(f"{at}{name}", "must be a text; put it in quotes")
            return ""
        size = len(value.encode(errors="replace"))
        if not 1 <= size <= MAX_TEXT_BYTES or CONTROL_CHARACTER.search(value) or _lone(value):
            self._note(
                f"{at}{name}", f"must be 1 to {MAX_TEXT_BYTES} bytes without control characters"
            )
            return ""
        return value

    def _number(
        self, fields: Mapping[str, object], name: str, at: str, pattern: re.Pattern[str],
        expected: str, *, text_too: bool = False,
    ) -> str | None:  # fmt: skip
        """A number as it is written; where a text may hold it, one that would be too long for others."""
        value = fields.get(name)
        if value is None:
            return None
        kinds = str if text_too else _Number
        if not isinstance(value, kinds) or not pattern.fullmatch(value):
            self._note(f"{at}{name}", f"must be {expected}")
            return None
        return value

    def _list(
        self, fields: Mapping[str, object], name: str, read: Callable[[object, str], T]
    ) -> tuple[T, ...]:
        value = fields.get(name, [])
        if not isinstance(value, list) or isinstance(value, _Object):
            self._note(name, "must be a JSON array")
            return ()
        return tuple(self._each(value, name, read))

    def _each(
        self, values: Sequence[object], name: str, read: Callable[[object, str], T]
    ) -> Iterator[T]:
        for place, each in enumerate(values):
            if len(self.problems) >= MAX_PROBLEMS:
                return
            yield read(each, f"{name}[{place}].")

    def _distinct(self, name: str, of: str, texts: Sequence[str]) -> None:
        seen: set[str] = set()
        for place, text in enumerate(texts):
            if text and text in seen:
                self._note(f"{name}[{place}].{of}", f"{text} stands twice; write it once")
            seen.add(text)

    def _note(self, place: str, problem: str) -> None:
        self.problems.append(f"{place}: {problem}")


def _lone(text: str) -> bool:
    """Whether it holds half a surrogate pair, which is no character."""
    return any("\ud800" <= each <= "\udfff" for each in text)


_COUNT = (re.compile("0|[1-9][0-9]{0,17}"), "a whole number from 0 on, without quotes")
_QUANTITY = (
    re.compile(r"-?(0|[1-9][0-9]{0,37})([.][0-9]{1,18})?"),
    "a plain decimal as 12.5 (or a text that holds one), with at most 18 digits after the point",
)
_DIGEST = (re.compile("0|-?[1-9][0-9]{0,37}"), "a whole number (or a text that holds one)")
