"""The recipe of an evidence folder, followed by an auditor who has pyarrow and hashlib, and nothing of the project.

``python verify_evidence.py FOLDER`` prints what is wrong, a line each; exit code 1 if anything is.
"""

import hashlib
import json
import re
import sys
from collections import defaultdict
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pyarrow.parquet as pq

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIGURES = ("event_count", "value_sum", "event_digest", "payload_digest")
NOTHING = (0, Decimal(0), 0, 0)


def rows(folder, name):
    """One batch after the other: events may be more than memory holds."""
    for batch in pq.ParquetFile(folder / f"{name}.parquet").iter_batches(10_000):
        yield from batch.to_pylist()


def half_hash(*parts):
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:32]


def term(hash_text):
    return int.from_bytes(bytes.fromhex(hash_text.replace("-", ""))[8:], "big", signed=True)


def add(sums, key, count, total, events, payloads):
    old = sums.get(key, NOTHING)
    sums[key] = (
        old[0] + count, old[1] + Decimal(total), old[2] + int(events), old[3] + int(payloads),
    )  # fmt: skip


def summed(found, *key):
    sums = {}
    for row in found:
        add(sums, tuple(row[name] for name in key), *(row[name] for name in FIGURES))
    return sums


def differing(what, sums, wanted):
    for key in sorted(sums.keys() | wanted.keys(), key=str):
        if sums.get(key, NOTHING) != wanted.get(key, NOTHING):
            yield f"{what} {key}: {sums.get(key)} instead of {wanted.get(key)}"


def file_problems(folder, index):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    for path in sorted(folder.iterdir()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name != "SHA256SUMS" and listed.get(path.name) != digest:
            yield f"{path.name} does not have its SHA-256"
        named = index["files"].get(path.name, {"sha256": None})["sha256"]
        if path.name not in ("SHA256SUMS", "index.json") and named != digest:
            yield f"{path.name} is not the file that the index names"
    if index["days_not_proven"]:
        yield f"days not proven: {index['days_not_proven']}"


def event_problems(folder, index, content, sums):
    seen = set()
    files = {row["file_key"] for row in rows(folder, "files")}
    for event in rows(folder, "events"):
        name = f"event {event['correlation_id']} of line {event['line_number']}"
        since = event["occurred_at"] - EPOCH
        microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        fields = (event["tenant_id"], event["event_type"], microseconds, event["correlation_id"])
        payload = (event["quantity"], event["properties"])
        hashes = [event[each].replace("-", "") for each in ("fingerprint", "payload_hash")]
        if hashes[0] != half_hash(*fields) or microseconds != event["occurred_us"]:
            yield f"{name}: its fingerprint is not that of its fields"
        if event["erased_at"] is None and hashes[1] != half_hash(*payload):
            yield f"{name}: its payload hash is not that of its payload"
        if event["tenant_id"] != content["tenant_id"] or event["file_key"] not in files:
            yield f"{name}: of another tenant or an unknown file"
        if (event["line_number"], hashes[0]) in seen:
            yield f"{name}: billed twice"
        seen.add((event["line_number"], hashes[0]))
        key = tuple(event[each] for each in ("line_number", "day", "hour", "dimensions"))
        add(sums, key, 1, event["value"], *map(term, hashes))
    if len(seen) != index["rows"]["events"]:
        yield f"{len(seen)} events instead of {index['rows']['events']}"


def usage_problems(folder, index, content):
    """Events make hours, hours make days, days make lines."""
    by_hour = {}
    yield from event_problems(folder, index, content, by_hour)
    hours = summed(rows(folder, "buckets"), "line_number", "day", "hour", "dimensions")
    yield from differing("hour", by_hour, hours)
    by_day = summed(rows(folder, "buckets"), "line_number", "day")
    yield from differing("day", by_day, summed(rows(folder, "days"), "line_number", "day"))
    by_line = summed(rows(folder, "days"), "line_number")
    for line in rows(folder, "lines"):
        count, total, *digests = by_line.get((line["line_number"],), NOTHING)
        known = [line["event_count"], int(line["event_digest"]), int(line["payload_digest"])]
        if line["component"] == "usage" and [count, *digests] != known:
            yield f"line {line['line_number']}: its days do not add up to it"
        if line["aggregation"] in ("count", "sum") and total != Decimal(line["quantity"]):
            yield f"line {line['line_number']}: its quantity is not that of its days"


def line_problems(folder, content):
    """Tiers make lines, and the tables say what the frozen text says."""
    exact = defaultdict(Decimal)
    for row in rows(folder, "slices"):
        exact[row["line_number"]] += Decimal(row["amount"])
    texts = defaultdict(list)
    for row in rows(folder, "days"):
        figures = ",".join(str(row[name]) for name in ("day", *FIGURES))
        texts[row["line_number"]].append(figures)
    said = {line["line_number"]: line for line in content["lines"]}
    unit = Decimal(1).scaleb(-content["minor_digits"])
    for line in rows(folder, "lines"):
        number = line["line_number"]
        frozen = said.pop(number, {})
        if line["component"] in ("usage", "flat") and exact[number].quantize(
            unit, ROUND_HALF_UP
        ) != Decimal(line["rated_amount"]):
            yield f"line {number}: its tiers do not add up to it"
        days = hashlib.sha256("\n".join(texts[number]).encode()).hexdigest()
        if texts[number] and days != frozen.get("usage_sha256"):
            yield f"line {number}: its days are not those that were frozen"
        for name in ("quantity", "amount", "rated_amount", *FIGURES[::2], "payload_digest"):
            if str(line[name]) != str(frozen.get(name)):
                yield f"line {number}: the frozen text has another {name}"
    if said:
        yield f"lines {sorted(said)} of the frozen text are missing"


def document_problems(folder, index, content):
    text = (folder / "content.json").read_bytes()
    if hashlib.sha256(text).hexdigest() != index["content_sha256"]:
        yield "content.json is not the document that was frozen"
    if content["previous_sha256"] != index["previous_sha256"]:
        yield "another document comes before it"
    (document,) = rows(folder, "document")
    for name in ("total", "amount_due", "tenant_id", "invoice_number", "previous_sha256"):
        if document[name] != content[name]:
            yield f"the frozen text has another {name}"
    lines = sum((Decimal(line["amount"]) for line in rows(folder, "lines")), start=Decimal(0))
    if lines != Decimal(document["total"]):
        yield "the lines do not add up to the document"
    net, coupons, tax, credits = (
        Decimal(document[name])
        for name in ("total", "coupon_amount", "tax_amount", "credit_amount")
    )
    if Decimal(document["amount_due"]) != net - coupons + tax - credits:
        yield "what is due does not add up"


def problems(folder):
    index = json.loads((folder / "index.json").read_text())
    content = json.loads((folder / "content.json").read_bytes())
    yield from file_problems(folder, index)
    yield from document_problems(folder, index, content)
    yield from line_problems(folder, content)
    yield from usage_problems(folder, index, content)


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1])))
    foreign = [name for name in sys.modules if re.match("metering_pipeline|tests|dagster|psycopg", name)]  # fmt: skip
    sys.stdout.write("".join(f"{each}\n" for each in [*found, *foreign]))
    sys.exit(1 if found or foreign else 0)
