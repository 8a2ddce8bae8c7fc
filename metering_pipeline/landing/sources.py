"""Where files come from: a directory, or a prefix of an object store, with one folder a landing hour.

``<root>/landed_hour=2026-01-31T13/<any name>.{ndjson,ndjson.gz,json,parquet,csv}``. The folder is the
producer's claim. A file's key is its path relative to the root, so a moved root lands nothing twice.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from pyarrow import fs

from metering_pipeline.errors import MeteringError
from metering_pipeline.settings import parse_hour

EXTENSIONS = (".ndjson", ".ndjson.gz", ".json", ".parquet", ".csv")
IGNORED_PREFIXES = (".", "_")
IGNORED_SUFFIX = ".tmp"
"""Names that begin with ``.`` or ``_`` or end in ``.tmp`` are not looked at: files still being
written, markers, and the reserved ``_manifest.json``."""

IN_MEMORY_BYTES = 64 << 20
"""A larger file is copied to the temporary folder instead of memory while it is read."""

NEVER_MODIFIED = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for the modification time where a store keeps none: then only the size tells."""

_COPY_BYTES = 1 << 20
_FOLDER = re.compile(r"landed_hour=(\d{4}-\d\d-\d\dT\d\d)")


class SourceError(MeteringError):
    """The landing root or a file in it cannot be read as it stands; nothing was landed from it."""


class SourceFile(NamedTuple):
    """A file of a landing hour, as listed. ``key`` is its path relative to the root."""

    key: str
    landed_hour: datetime
    size_bytes: int
    modified: datetime


class Unknown(NamedTuple):
    """Something below the root that cannot be landed, and what to do about it."""

    path: str
    landed_hour: datetime | None
    problem: str


class Snapshot(NamedTuple):
    """A file's content, fixed: what was hashed is what is read."""

    stream: IO[bytes]
    content_sha256: str
    size_bytes: int


@dataclass
class Contents:
    """What a listing found: files by hour, each in the order of their keys, and what is unknown."""

    files: dict[datetime, list[SourceFile]] = field(default_factory=dict)
    unknown: list[Unknown] = field(default_factory=list)


class Source:
    """A landing root. Raises SourceError when it is not there."""

    def __init__(self, url: str) -> None:
        self.url = url
        if "://" in url:
            filesystem, path = fs.FileSystem.from_uri(url)
        else:
            filesystem, path = fs.LocalFileSystem(), str(Path(url).resolve())
        # A misspelt root would otherwise look like hours without usage, and they would be billed.
        if filesystem.get_file_info(path).type != fs.FileType.Directory:
            raise SourceError(
                f"the landing root {url} is not there; create it or correct METERING_LANDING_URL"
            )
        self._files = fs.SubTreeFileSystem(path, filesystem)

    def list_all(self) -> Contents:
        """Everything below the root, by one listing."""
        contents = Contents()
        for info in self._files.get_file_info(fs.FileSelector("", recursive=True)):
            _sort_in(info, contents)
        return _in_order(contents)

    def list_hour(self, landed_hour: datetime) -> Contents:
        """One hour's folder; empty if there is none."""
        folder = f"landed_hour={landed_hour:%Y-%m-%dT%H}"
        contents = Contents()
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        for info in self._files.get_file_info(selector):
            _sort_in(info, contents)
        return _in_order(contents)

    @contextmanager
    def snapshot(self, file: SourceFile) -> Iterator[Snapshot]:
        """A fixed copy of the file, in memory or, if large, in the temporary folder.

        Raises SourceError when the file is not, or no longer, what was listed.
        """
        digest = hashlib.sha256()
        size = 0
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as copy:
            try:
                with self._files.open_input_stream(file.key, compression=None) as stream:
                    while block := stream.read(_COPY_BYTES):
                        digest.update(block)
                        copy.write(block)
                        size += len(block)
                info = self._files.get_file_info(file.key)
            except FileNotFoundError:
                raise _changed(file) from None
            listed = (file.size_bytes, file.size_bytes, file.modified)
            if (size, info.size, info.mtime or NEVER_MODIFIED) != listed:
                raise _changed(file)
            copy.seek(0)
            yield Snapshot(copy, digest.hexdigest(), size)


def _changed(file: SourceFile) -> SourceError:
    return SourceError(
        f"{file.key} changed while it was read; nothing of its hour was landed. Let producers write"
        " under a name ending in .tmp and rename, then land the hour again"
    )


def _ignored(name: str) -> bool:
    return name.startswith(IGNORED_PREFIXES) or name.endswith(IGNORED_SUFFIX)


def _sort_in(info: fs.FileInfo, contents: Contents) -> None:
    """Put one entry of a listing where it belongs."""
    parts = info.path.split("/")
    if any(map(_ignored, parts)):
        return
    hour = _folder_hour(parts[0])
    if hour is None:
        if len(parts) == 1:
            problem = (
                "not a folder named as landed_hour=2026-01-31T13; rename it, or begin it with _"
            )
            contents.unknown.append(Unknown(info.path, None, problem))
        return
    if len(parts) == 1 and info.type == fs.FileType.Directory:
        return
    if len(parts) != 2 or info.type != fs.FileType.File:
        problem = "only files directly in the hour's folder are landed; move it, or begin it with _"
    elif not info.path.endswith(EXTENSIONS):
        problem = f"the name ends in none of {', '.join(EXTENSIONS)}; rename it, or begin it with _"
    else:
        file = SourceFile(info.path, hour, info.size, info.mtime or NEVER_MODIFIED)
        contents.files.setdefault(hour, []).append(file)
        return
    contents.unknown.append(Unknown(info.path, hour, problem))


def _folder_hour(name: str) -> datetime | None:
    match = _FOLDER.fullmatch(name)
    if match is None:
        return None
    try:
        return parse_hour(match[1])
    except ValueError:
        return None


def _in_order(contents: Contents) -> Contents:
    for files in contents.files.values():
        files.sort(key=lambda file: file.key)
    contents.unknown.sort(key=lambda unknown: unknown.path)
    return contents
