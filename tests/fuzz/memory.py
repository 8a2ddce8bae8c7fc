"""How much memory the readers take beside what was there before; a program, printing MiB.

A process of its own, since the peak of a process never falls.
"""

import gzip
import io
import resource
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from metering_pipeline.landing import readers
from metering_pipeline.landing.events import Limits

HOUR = datetime(2026, 1, 31, 13, tzinfo=UTC)
LIMITS = Limits.of_hour(HOUR, date(2020, 1, 1), 60)
EVENT = (
    b'{"tenant_id":"acme","event_type":"api.request","occurred_at":"2026-01-31T13:05:00Z",'
    b'"correlation_id":"req-1","quantity":2.5,"properties":{"model":"small","tokens":812}}\n'
)
HEADER = b"tenant_id,event_type,occurred_at,correlation_id\n"
MEBIBYTE = 1 << 20


def peak() -> float:
    """The most memory that this process has had, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (MEBIBYTE if sys.platform == "darwin" else 1024)


def written(parts: Iterator[bytes], stream: IO[bytes]) -> IO[bytes]:
    """The parts in a temporary file: the file's size must not count as memory."""
    stream.writelines(parts)
    stream.seek(0)
    return stream


def long_line(start: bytes) -> Iterator[bytes]:
    """A line of 100 MiB between two others."""
    yield start
    yield from (b"x" * MEBIBYTE for _ in range(100))
    yield b"\n" + EVENT


def ordinary() -> Iterator[bytes]:
    """40 MiB of ordinary lines."""
    yield from (EVENT * 6000 for _ in range(40))


def bomb() -> Iterator[bytes]:
    """100 kB of gzip that unpack to one line of 100 MiB."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as stream:
        stream.writelines(long_line(EVENT))
    yield packed.getvalue()


def one_row_group(rows: int = 200_000) -> Iterator[bytes]:
    """Parquet that was written in one piece."""
    columns = {name: ["acme"] * rows for name in ("tenant_id", "event_type", "correlation_id")}
    table = pa.table(columns | {"occurred_at": ["2026-01-31T13:05:00Z"] * rows})
    packed = io.BytesIO()
    pq.write_table(table, packed, row_group_size=rows)
    yield packed.getvalue()


def main() -> None:
    """Read each file; its growth of the peak, and what came of it."""
    readers_used = [("a.ndjson", iter([EVENT])), ("a.parquet", one_row_group(9))]
    for name, parts in [
        *readers_used,
        ("ordinary.ndjson", ordinary()),
        ("line.ndjson", long_line(EVENT)),
        ("line.csv", long_line(HEADER)),
        ("bomb.ndjson.gz", bomb()),
        ("group.parquet", one_row_group()),
    ]:
        with tempfile.TemporaryFile() as file:
            stream = written(parts, file)
            before = peak()
            chunks = readers.read(name, stream, LIMITS)
            counts = [(chunk.events.num_rows, len(chunk.rejected)) for chunk in chunks]
            accepted, rejected = map(sum, zip(*counts, strict=True))
            sys.stdout.write(f"{name} {peak() - before:.0f} {accepted} {rejected}\n")


if __name__ == "__main__":
    main()
