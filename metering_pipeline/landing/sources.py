"""Where files come from: a directory, or a prefix of an object store, with one folder a landing hour.

``<root>/landed_hour=2026-01-31T13/<any name>.{ndjson,ndjson.gz,json,parquet,csv}``. The folder is the
producer's claim. A file's key is its path relative to the root, so a moved root lands nothing twice.
"""

import copy
import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
from pyarrow import fs

from metering_pipeline.errors import MeteringError
from metering_pipeline.settings import HOUR, parse_hour

EXTENSIONS = (".ndjson", ".ndjson.gz", ".json", ".parquet", ".csv")
IGNORED_PREFIXES = (".", "_")
IGNORED_SUFFIX = ".tmp"
"""Names that begin with ``.`` or ``_`` or end in ``.tmp`` are no event files: files still being
written, markers, and manifests."""

MANIFEST = re.compile(r"_manifest(?:\.(?P<source>.+))?\.json")
"""What a producer says that it sent, beside the files of an hour; with its source where there are several."""

IN_MEMORY_BYTES = 64 << 20
"""A larger file is copied to the temporary folder instead of memory while it is read."""

NEVER_MODIFIED = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for the modification time where a store keeps none: then only the size tells."""

KEYS_A_CALL = 1000
"""How many keys an object store lists in one call, whatever their folders."""

_COPY_BYTES = 1 << 20
_FETCH_BYTES = 8 << 20
"""An object store is asked for so much at once: each request costs a round trip."""
_GCS_RETRY_SECONDS = 15
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
    """What a listing found: files and manifests by hour, in the order of their keys, and what is unknown."""

    files: dict[datetime, list[SourceFile]] = field(default_factory=dict)
    manifests: dict[datetime, list[SourceFile]] = field(default_factory=dict)
    unknown: list[Unknown] = field(default_factory=list)


class Source:
    """A landing root. Raises SourceError when it is not there or cannot be read."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._shown = without_secrets(url)
        with self._explained():
            filesystem, path = open_filesystem(url)
        self._in_folders = filesystem.type_name == "local"
        self._root, self._root_path = filesystem, path
        self._expect_root()
        self._files = fs.SubTreeFileSystem(path, filesystem)

    def list_all(self) -> Contents:
        """Everything below the root, by one listing."""
        return self._list([""])

    def list_hour(self, landed_hour: datetime) -> Contents:
        """One hour's folder; empty if there is none."""
        return self._list([_folder(landed_hour)])

    def list_since(self, since: datetime, last: datetime, files: int = 0) -> Contents:
        """The folders of the hours from since to last, and perhaps others.

        A directory costs a call a folder. So does an object store, but it lists a whole root of
        few files, about so many as given, in fewer calls.
        """
        hours = [since + number * HOUR for number in range((last - since) // HOUR + 1)]
        if not self._in_folders and files <= KEYS_A_CALL * len(hours):
            return self.list_all()
        return self._list([_folder(hour) for hour in hours])

    @contextmanager
    def snapshot(self, file: SourceFile) -> Iterator[Snapshot]:
        """A fixed copy of the file, in memory or, if large, in the temporary folder.

        Raises SourceError when the file is not, or no longer, what was listed.
        """
        # asked for the folder here: that there is none, or a full one, is no fault of the file
        folder = tempfile.gettempdir()
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES, dir=folder) as stream:
            try:
                with self._explained(file.key):
                    digest, size = self._copy(file, stream)
                    info = self._files.get_file_info(file.key)
            except FileNotFoundError:
                raise self._changed(file, "is gone since it was listed") from None
            if info.type == fs.FileType.NotFound:
                raise self._changed(file, "is gone since it was listed")
            listed = (file.size_bytes, file.size_bytes, self._told(file.modified))
            if (size, info.size, self._told(info.mtime or NEVER_MODIFIED)) != listed:
                raise self._changed(file, "changed while it was read")
            stream.seek(0)
            yield Snapshot(stream, digest, size)

    def _list(self, folders: Sequence[str]) -> Contents:
        contents = Contents()
        with self._explained():
            for folder in folders:
                selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
                for info in self._files.get_file_info(selector):
                    _sort_in(info, contents)
        if not contents.files and not contents.manifests:
            self._expect_root()
        return _in_order(contents)

    def _expect_root(self) -> None:
        """A misspelt or vanished root would look like hours without usage, and they would be billed."""
        with self._explained():
            found = self._root.get_file_info(self._root_path).type
        if found != fs.FileType.Directory:
            raise SourceError(
                f"the landing root {self._shown} is not there, or no directory; correct"
                " METERING_LANDING_URL, or create it (in an object store: the bucket, and a first"
                " file below the prefix)"
            )

    def _copy(self, file: SourceFile, target: IO[bytes]) -> tuple[str, int]:
        digest = hashlib.sha256()
        size = 0
        fetch = None if self._in_folders else _FETCH_BYTES
        with self._files.open_input_stream(file.key, compression=None, buffer_size=fetch) as stream:
            # no further than it was listed: a file that is written to meanwhile may never end
            while size <= file.size_bytes and (block := stream.read(_COPY_BYTES)):
                digest.update(block)
                target.write(block)
                size += len(block)
        return digest.hexdigest(), size

    def _told(self, modified: datetime) -> datetime:
        """Object stores tell a file's time in seconds, and some of them more exactly in listings."""
        return modified if self._in_folders else modified.replace(microsecond=0)

    def _changed(self, file: SourceFile, what: str) -> SourceError:
        return SourceError(
            f"{self._place(file.key)} {what}; nothing of its hour was landed. Land the hour again;"
            " let producers write under a name ending in .tmp and rename"
        )

    def _place(self, key: str) -> str:
        return f"{self._shown.partition('?')[0].rstrip('/')}/{key}"

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        """What Arrow and the stores report as errors, as one that says what to do."""
        place = self._place(key) if key else f"the landing root {self._shown}"
        try:
            yield
        except FileNotFoundError:
            if key:
                raise
            raise SourceError(f"{place} changed while it was listed; list it again") from None
        except (OSError, pa.ArrowException) as error:
            # not as its cause: the client's own words may hold the URL with its secrets
            detail = str(error).replace(self._url, self._shown)
            advice = "make it readable" if isinstance(error, PermissionError) else _advice(detail)
            raise SourceError(f"{place} cannot be read: {advice}. {detail}") from None


def open_filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a URL or a directory and the path in it, with clients that give up within seconds.

    Raises OSError, pa.ArrowInvalid.
    """
    if "://" not in url:
        return fs.LocalFileSystem(), str(Path(url).resolve())
    if url.startswith(("gs://", "gcs://")) and "retry_limit_seconds" not in url:
        url += f"{'&' if '?' in url else '?'}retry_limit_seconds={_GCS_RETRY_SECONDS}"
    filesystem, path = fs.FileSystem.from_uri(url)
    if not path:
        raise pa.ArrowInvalid("Missing bucket name")
    # The S3 client made from a URL tries a silent server for minutes; a copy is made by the
    # constructor, whose client tries three times.
    return copy.copy(filesystem), path.rstrip("/") or path


def without_secrets(url: str) -> str:
    """The URL without what stands before its @, and without queries that look like secrets."""
    url = re.sub(r"(?<=://).*@", "***@", url)
    return re.sub(r"(?i)((?:key|secret|token|password|signature)[^=&]*=)[^&]*", r"\1***", url)


def _advice(detail: str) -> str:
    """What to do, judged by the words of an error of Arrow or a store's client."""
    for words, advice in _ADVICE:
        if re.search(words, detail, re.IGNORECASE):
            return advice
    return "check METERING_LANDING_URL, the store and its credentials"


_ADVICE = (
    (
        "cannot parse uri|unrecognized filesystem|unexpected query|unsupported hostname|bucket name",
        "METERING_LANDING_URL is a directory, or a URL as s3://bucket/prefix (an @, / or space in a"
        " secret is written %40, %2F, %20)",
    ),
    (
        "access.?denied|permission|forbidden|unauthorized|signature|access.?key|credential|token",
        "the store refuses the credentials, or there are none; set AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY (or the store's own), and let them list and read",
    ),
    (
        "no space left",
        "free some space in the temporary folder, or name another as TMPDIR",
    ),
    (
        "network_connection|resolve|connect|timeout|unavailable",
        "the store does not answer; check the network and the URL's endpoint_override",
    ),
)


def _ignored(name: str) -> bool:
    return name.startswith(IGNORED_PREFIXES) or name.endswith(IGNORED_SUFFIX)


def _sort_in(info: fs.FileInfo, contents: Contents) -> None:
    """Put one entry of a listing where it belongs."""
    parts = info.path.split("/")
    hour = _folder_hour(parts[0])
    if any(map(_ignored, parts)):
        if (
            hour
            and len(parts) == 2
            and info.type == fs.FileType.File
            and MANIFEST.fullmatch(parts[1])
        ):
            _add(info, hour, contents.manifests)
        return
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
        _add(info, hour, contents.files)
        return
    contents.unknown.append(Unknown(info.path, hour, problem))


def _add(info: fs.FileInfo, hour: datetime, files: dict[datetime, list[SourceFile]]) -> None:
    file = SourceFile(info.path, hour, info.size, info.mtime or NEVER_MODIFIED)
    files.setdefault(hour, []).append(file)


def manifest_source(name: str) -> str | None:
    """The source in a manifest's name; None where there is none."""
    match = MANIFEST.fullmatch(name)
    return match["source"] if match else None


def _folder(landed_hour: datetime) -> str:
    return f"landed_hour={landed_hour:%Y-%m-%dT%H}"


def _folder_hour(name: str) -> datetime | None:
    match = _FOLDER.fullmatch(name)
    if match is None:
        return None
    try:
        return parse_hour(match[1])
    except ValueError:
        return None


def _in_order(contents: Contents) -> Contents:
    for files in (*contents.files.values(), *contents.manifests.values()):
        files.sort(key=lambda file: file.key)
    contents.unknown.sort(key=lambda unknown: unknown.path)
    return contents
