"""The pipeline on one database and one landing root, by the functions that its assets call, and the
oracle beside it: what is done to the one is told to the other, and then both are compared."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from metering_pipeline.landing.listing import Listing, list_hours
from metering_pipeline.landing.sources import Source
from metering_pipeline.landing.store import Store
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.reconciliation.rebuild import rebuild_ledger
from metering_pipeline.settings import END_OF_TIME, HOUR, Settings, parse_hour
from tests.scenarios import oracle
from tests.soak.posting import CATALOG, DAILY, LEDGER, ROLLUPS, SUSPECTS, Poster

HOURS = [datetime(2026, 1, 10, 23, tzinfo=UTC) + number * HOUR for number in range(4)]
"""The landing hours, across a midnight."""
LOOKBACK = timedelta(hours=2)
Metrics = Sequence[oracle.Metric]
SAMPLE: Metrics = [
    oracle.Metric("requests", "api.request", "count"),
    oracle.Metric("input_tokens", "api.request", "sum", "input_tokens", ("model",)),
    oracle.Metric("output_tokens", "api.request", "sum", "output_tokens", ("model",)),
    oracle.Metric("storage_gb_hours", "storage.snapshot", "sum"),
]
"""Those of the sample catalog."""
MORE: Metrics = [
    *SAMPLE,
    oracle.Metric("users", "api.request", "unique_count", "user"),
    oracle.Metric("users_by_model", "api.request", "unique_count", "user", ("model", "operation")),
    oracle.Metric("p90", "api.request", "percentile", "output_tokens", percentile=Decimal(90)),
    oracle.Metric("storage_level", "storage.snapshot", "weighted_sum"),
]
"""With some of which a sum is not enough."""
OTHER: Metrics = [
    oracle.Metric("requests", "api.request", "count", filter=(("model", "small"),)),
    oracle.Metric("input_tokens", "api.request", "max", "input_tokens", ("user", "model")),
    oracle.Metric("output_tokens", "storage.snapshot", "latest", None, ("model",)),
    oracle.Metric("storage_gb_hours", "page.viewed", "weighted_sum"),
    oracle.Metric("users", "api.request", "percentile", "output_tokens", percentile=Decimal(1)),
]
"""The same names, but they measure otherwise, and other events."""
CATALOGS = {"sample": SAMPLE, "more": MORE, "other": OTHER}

Event = Mapping[str, Any]


class World:
    """Files, a database, and what the database must hold."""

    def __init__(self, database: Database, root: Path, post: Poster) -> None:
        self.database = database
        self.root = root
        self.post = post
        self.settings = Settings(
            database_url=database.url,
            dagster_database_url=database.dagster_url,
            landing_url=str(root),
            first_hour=HOURS[0],
            lookback_hours=LOOKBACK // HOUR,
            clock=HOURS[-1] + 2 * HOUR,
        )
        self.files: dict[str, tuple[datetime, list[Event]]] = {}
        self.landed = oracle.Landing()
        self.listed: set[UUID] = set()
        self.metrics = SAMPLE
        root.mkdir(exist_ok=True)
        open_database(self.settings)

    # Opened once: a connection costs more than what is done here to a few rows.

    @cached_property
    def _store(self) -> Store:
        return Store(self.database.url, self.settings, Source(str(self.root)))

    @cached_property
    def _connection(self) -> psycopg.Connection:
        return self.database.connect(autocommit=True)

    def close(self) -> None:
        """Close what is open; it is opened again when needed."""
        if "_store" in self.__dict__:
            self._store.__exit__(None, None, None)
            del self._store
        if "_connection" in self.__dict__:
            self._connection.close()
            del self._connection

    def begin_anew(self) -> None:
        """No file, no row; what the schema, the settings and the catalog need stays."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        self.files.clear()
        self.landed = oracle.Landing()
        self.listed.clear()
        self._empty(_TABLES)
        if self.metrics is not SAMPLE:
            self.publish("sample")

    def forget_ledger(self) -> None:
        """As before the first posting: what is landed is all there is."""
        self._empty([*_LEDGER, "ledger.pending"])

    def _empty(self, tables: Iterable[str]) -> None:
        self._connection.execute(";".join(f"delete from {table}" for table in tables).encode())

    def _folder(self, hour: datetime) -> Path:
        return self.root / f"landed_hour={hour:%Y-%m-%dT%H}"

    # What happens

    def write(self, hour: datetime, name: str, events: Iterable[Event]) -> None:
        """Put a file into an hour's folder, or replace it."""
        self._folder(hour).mkdir(exist_ok=True)
        held = list(events)
        path = self._folder(hour) / name
        path.write_text("".join(json.dumps(event) + "\n" for event in held))
        self.files[str(path.relative_to(self.root))] = (hour, held)

    def put_back(self, hour: datetime, name: str) -> None:
        """Give a file the content that was landed first under its name, if there is one."""
        if versions := self.landed.versions.get(f"{self._folder(hour).name}/{name}"):
            self.write(hour, name, [record.event for record in versions[0]])

    def remove(self, hour: datetime, name: str) -> None:
        """Take a file away: what was landed of it stays."""
        key = f"{self._folder(hour).name}/{name}"
        if self.files.pop(key, None):
            (self.root / key).unlink()

    def land(self, first: datetime, last: datetime) -> None:
        """What land_hours does, on the connection that is open."""
        for hour in HOURS:
            if first <= hour <= last and self._folder(hour).exists():
                self._store.land_hour(hour, self.settings.now())
        self.note_landed(first, last)

    def note_landed(self, first: datetime, last: datetime) -> None:
        """Tell the oracle that the hours' files, as they are now, are landed."""
        for key, (hour, events) in sorted(self.files.items()):
            if first <= hour <= last:
                self.landed.land(hour, key, events)

    def post_ledger(self, first: datetime, last: datetime) -> None:
        self.post([LEDGER], Window(first, last + HOUR))

    def roll_up(self, before: datetime = END_OF_TIME) -> None:
        """Roll up what hours before the given one owe."""
        self.post(ROLLUPS, Window(HOURS[0] - HOUR, before))  # dbt wants a window that is not empty

    def contribute(self) -> None:
        """The first half of roll_up, as if what follows had been cut off."""
        self.post(ROLLUPS[:1], Window(HOURS[0] - HOUR, END_OF_TIME))

    def merge(self) -> None:
        """The second half."""
        self.post(ROLLUPS[1:], Window(HOURS[0] - HOUR, END_OF_TIME))

    def sum_days(self) -> None:
        self.post([DAILY], Window(HOURS[0], END_OF_TIME))

    def list_suspects(self) -> None:
        """What the job daily does, with the ledger as it is: what it lists depends on what it has listed before."""
        self.post([SUSPECTS], Window(HOURS[0], END_OF_TIME))
        expected = {pair[-2:] for pair in self._suspects(self._ledger())}
        found = self.rows("select fingerprint, first_fingerprint from ledger.suspects")
        expect("suspects", Counter(found), Counter(expected))
        self.listed = {fingerprint for pair in expected for fingerprint in pair}

    def publish(self, catalog: str) -> None:
        """Publish a catalog with other metrics: what they measure is owed over all of history."""
        self.metrics = CATALOGS[catalog]
        self._connection.execute("delete from staging.metrics")
        with self._connection.cursor() as cursor:
            cursor.executemany(
                "insert into staging.metrics (metric, event_type, aggregation, value_property, percentile, dimensions,"
                " unit, filter, description) values (%s, %s, %s, %s, %s, %s, 'units', %s, 'For people.')",
                [
                    (
                        metric.name,
                        metric.event_type,
                        metric.aggregation,
                        metric.value_property,
                        None if metric.percentile is None else str(metric.percentile),
                        json.dumps(metric.dimensions),
                        json.dumps(dict(metric.filter)),
                    )
                    for metric in self.metrics
                ],
            )
        self.post([CATALOG], Window(HOURS[0], END_OF_TIME))

    def release(self) -> None:
        """Release what is later than the lookback; the next roll_up takes it."""
        from metering_pipeline.transform.late_arrivals import release_late_arrivals

        release_late_arrivals(self.database)

    def run(self, first: datetime, last: datetime) -> None:
        """What a run of the job hourly does."""
        self.land(first, last)
        self.post_ledger(first, last)
        self.roll_up()
        self.sum_days()

    def listing(self) -> Listing:
        return list_hours(self.database.url, self.settings, self.settings.now())

    # What must be

    def check_ledger(self) -> None:
        """Every current version is landed, and posted: each table of the ledger row for row."""
        ledger = oracle.post(self.landed.records())
        for table, records in (
            ("usage_events", ledger.events),
            ("voids", ledger.voids),
            ("conflicts", ledger.conflicts),
        ):
            expect(table, self._places(_BY_FILE, table), Counter(map(_place, records)))
        expect(
            "duplicates",
            self._places("rows.kind, " + _BY_FILE, "duplicates"),
            Counter((record.kind, *_place(record)) for record in ledger.duplicates),
        )
        withdrawn = self.rows(
            "select kind, landed_hour, file_key, line_number, fingerprint, payload_hash"
            " from ledger.withdrawn"
        )
        expect(
            "withdrawn",
            Counter(withdrawn),
            Counter((record.kind, *_place(record)) for record in self.landed.withdrawn()),
        )

    def check_rebuilt(self) -> None:
        """The ledger built anew from landing by a second piece of code, as ``metering rebuild`` does."""
        rebuilt = rebuild_ledger(self.database, None, None, self.settings.now())
        assert (rebuilt.differing, rebuilt.left_out) == (0, 0), rebuilt.samples

    def check_debts(self) -> None:
        """Only what is later than the lookback is owed, and whoever reads in real time sees it all."""
        early = self.rows(
            "select * from ledger.pending where landed_hour - event_hour <= %s", LOOKBACK
        )
        assert early == [], early
        self.check_realtime()

    def check_realtime(self) -> None:
        """Whatever is owed: whoever reads in real time sees the ledger as it is."""
        self._expect_figures("usage_realtime", "hour", oracle.hourly(self._ledger(), self.metrics))

    def check_days(self) -> None:
        """Whatever is owed: the days that the queue does not name are the sum of their hours."""
        differing = self.rows(
            """
            with summed as (
                select
                    tenant_id, metric, (hour at time zone 'UTC')::date as day, dimensions,
                    sum(event_count) as event_count, sum(value_sum) as value_sum,
                    min(value_min) as value_min, max(value_max) as value_max, max(latest_at) as latest_at,
                    sum(event_digest) as event_digest, sum(payload_digest) as payload_digest
                from rollups.usage_hourly
                group by 1, 2, 3, 4
            )
            select to_jsonb(days), to_jsonb(summed)
            from rollups.usage_daily as days
            full join summed using (tenant_id, metric, day, dimensions)
            where
                (tenant_id, metric, day) not in (select tenant_id, metric, day from rollups.touched_days)
                and (
                    days.event_count, days.value_sum, days.value_min, days.value_max, days.latest_at,
                    days.event_digest, days.payload_digest
                ) is distinct from (
                    summed.event_count, summed.value_sum, summed.value_min, summed.value_max, summed.latest_at,
                    summed.event_digest, summed.payload_digest
                )
            """
        )
        assert differing == [], differing

    def _ledger(self) -> oracle.Ledger:
        """The events and voids that the ledger holds."""
        events, voids = (
            [
                oracle.Record(landed_hour, "", 0, event)
                for landed_hour, event in self.rows(
                    f"""
                    select landed_hour, jsonb_build_object(
                        'tenant_id', tenant_id, 'event_type', event_type,
                        'occurred_at', to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                        'correlation_id', correlation_id, 'quantity', quantity::text, 'properties', properties
                    )
                    from ledger.{table}
                    """
                )
            ]
            for table in ("usage_events", "voids")
        )
        return oracle.Ledger(events=events, duplicates=[], conflicts=[], voids=voids)

    def check_rollups(self) -> None:
        """Nothing is owed, and every table of the rollups is the oracle's."""
        for queue in ("ledger.pending", "rollups.touched_buckets", "rollups.touched_days"):
            assert self.rows(f"select * from {queue}") == [], queue
        ledger = oracle.post(self.landed.records())
        contributions = oracle.contributions(ledger, self.metrics)
        self._expect_figures("usage_contributions", "hour", contributions, "landed_hour, ")
        self._expect_figures("usage_hourly", "hour", oracle.hourly(ledger, self.metrics))
        self._expect_figures("usage_daily", "day", oracle.daily(ledger, self.metrics))
        self._expect_values(
            "unique_value_contributions",
            oracle.unique_value_contributions(ledger, self.metrics),
            "landed_hour, ",
        )
        self._expect_values("unique_values_hourly", oracle.unique_values(ledger, self.metrics))
        expect(
            "unreadable_values",
            self._counts("tenant_id, metric, hour, reason", "unreadable_values"),
            oracle.unreadable(ledger, self.metrics),
        )
        expect(
            "unmetered_events",
            self._counts("tenant_id, event_type, hour", "unmetered_events"),
            oracle.unmetered(ledger, self.metrics),
        )
        expect(
            "arrival_delays",
            self._counts("event_type, delay_hours", "arrival_delays"),
            oracle.arrival_delays(ledger),
        )

    def check_suspects(self) -> None:
        """After list_suspects."""
        found = self._places(
            "landed_hour, file_key, line_number, fingerprint, first_fingerprint", "suspects"
        )
        expected = self._suspects(oracle.post(self.landed.records()))
        expect("suspects", found, Counter(expected))

    def _suspects(self, ledger: oracle.Ledger) -> set[tuple[Any, ...]]:
        hours = [parse_hour(key.split("/")[0].split("=")[1]) for key in self.landed.versions]
        since = max(hours, default=HOURS[0]) - LOOKBACK
        return oracle.suspects(ledger, since, self.listed)

    def ledger_rows(self, clock: bool) -> dict[str, Counter[str]]:
        """Every row of the ledger's tables, with or without the time at which it was recorded."""
        without = [] if clock else ["recorded_at"]
        return {
            table: Counter(
                row
                for (row,) in self.rows(
                    f"select (to_jsonb(rows) - %s::text[])::text from {table} as rows", without
                )
            )
            for table in _LEDGER
        }

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), parameters or None).fetchall()

    def _places(self, columns: str, table: str) -> Counter[tuple[Any, ...]]:
        return Counter(
            self.rows(
                f"select {columns} from ledger.{table} as rows inner join landing.files using (file_id, landed_hour)"
            )
        )

    def _counts(self, key: str, table: str) -> Counter[tuple[Any, ...]]:
        rows = self.rows(f"select landed_hour, {key}, event_count from rollups.{table}")
        return Counter({row[:-1]: row[-1] for row in rows})

    def _expect_figures(
        self,
        table: str,
        time: str,
        expected: Mapping[tuple[Any, ...], oracle.Figures],
        prefix: str = "",
    ) -> None:
        rows = self.rows(
            f"select {prefix}tenant_id, metric, {time}, dimensions, event_count, value_sum, value_moment,"
            " value_min, value_max, value_latest, latest_at, latest_fingerprint, event_digest, payload_digest"
            f" from rollups.{table}"
        )
        found = Counter(
            (*row[:-11], json.dumps(row[-11], sort_keys=True), *row[-10:]) for row in rows
        )
        expect(table, found, Counter((*key, *figures) for key, figures in expected.items()))

    def _expect_values(
        self, table: str, expected: Mapping[tuple[Any, ...], oracle.Members], prefix: str = ""
    ) -> None:
        rows = self.rows(
            f"select {prefix}tenant_id, metric, hour, dimensions, value, event_count, latest_at,"
            f" latest_fingerprint, removed from rollups.{table}"
        )
        found = Counter((*row[:-6], json.dumps(row[-6], sort_keys=True), *row[-5:]) for row in rows)
        expect(table, found, Counter((*key, *members) for key, members in expected.items()))


def expect(what: str, found: Counter[Any], expected: Counter[Any]) -> None:
    """Both hold the same rows, each as often. Counters of figures may hold zeros and less."""
    if found != expected:
        keys = [key for key in {**found, **expected} if found[key] != expected[key]]
        differences = [f"{found[key]} instead of {expected[key]} of {key}" for key in keys]
        raise AssertionError(
            f"{what}: {len(keys)} differences, such as\n" + "\n".join(differences[:5])
        )


def _place(record: oracle.Record) -> tuple[Any, ...]:
    return (*record.place, record.fingerprint, record.payload_hash)


_BY_FILE = "landed_hour, file_key, line_number, fingerprint, payload_hash"
_LEDGER = [
    f"ledger.{name}" for name in ("usage_events", "duplicates", "conflicts", "voids", "withdrawn")
]
_TABLES = [
    *(*_LEDGER, "ledger.pending", "ledger.suspects"),
    *(
        f"rollups.{name}"
        for name in (
            "usage_contributions", "usage_hourly", "usage_daily", "touched_buckets", "touched_days",
            "unique_value_contributions", "unique_values_hourly",
            "unreadable_values", "unmetered_events", "arrival_delays",
        )
    ),
    *("rating.touched", "landing.rejected_events", "landing.usage_events", "landing.files", "landing.hours"),
]  # fmt: skip
