"""What an analyst asks most, asked again and again, of the rollups and of the ledger."""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psutil
import psycopg

from benchmarks import workload
from benchmarks.measure import Reading, Report, cost_of
from benchmarks.workload import FIRST_DAY

READINGS = 400
SCANS = 3
"""Times that a question is asked of the rollups, and of the ledger without an index that would help."""

SECONDS = 60.0
"""After that long a source is asked no more, however often it was."""

UNTIMED = 10
"""First times: the server parses and plans, and caches begin to fill."""

Answer = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Question:
    """The same question to each source: rows of when, how many events, and their sum."""

    name: str
    sources: Mapping[str, LiteralString]

    def parameters(self, days: int) -> Iterator[Mapping[str, object]]:
        """Random tenants, metrics and days out of the first so many, always in the same order."""
        dice = random.Random(1)  # noqa: S311  (nothing is to be kept secret)
        month_end = FIRST_DAY + timedelta(days=31)
        while True:
            metric = dice.choice(workload.METRICS)
            day = FIRST_DAY + timedelta(days=dice.randrange(days))
            yield {
                "tenant": f"tenant-{dice.randrange(workload.TENANTS):04d}",
                "metric": metric.name,
                "event_type": metric.event_type,
                **_span("month", FIRST_DAY, month_end),
                **_span("day", day, day + timedelta(days=1)),
            }


def _span(name: str, start: datetime, end: datetime) -> Mapping[str, object]:
    return {
        f"{name}_start": start,
        f"{name}_end": end,
        f"{name}_first": start.date(),
        f"{name}_next": end.date(),
    }


QUESTIONS = [
    Question(
        "tenant-month by day",
        {
            "usage_daily": """
                select day, sum(event_count)::bigint, sum(value_sum)
                from rollups.usage_daily
                where tenant_id = %(tenant)s and metric = %(metric)s
                    and day >= %(month_first)s and day < %(month_next)s
                group by day
                order by day
            """,
            "usage_realtime": """
                select (hour at time zone 'UTC')::date as day, sum(event_count)::bigint, sum(value_sum)
                from rollups.usage_realtime
                where tenant_id = %(tenant)s and metric = %(metric)s
                    and hour >= %(month_start)s and hour < %(month_end)s
                group by day
                order by day
            """,
            "ledger, a scan": """
                select (occurred_at at time zone 'UTC')::date as day, count(*), sum(quantity)
                from ledger.usage_events
                where tenant_id = %(tenant)s and event_type = %(event_type)s
                    and occurred_at >= %(month_start)s and occurred_at < %(month_end)s
                group by day
                order by day
            """,
        },
    ),
    Question(
        "tenant-day by hour",
        {
            "usage_hourly": """
                select hour, metric, sum(event_count)::bigint, sum(value_sum)
                from rollups.usage_hourly
                where tenant_id = %(tenant)s and hour >= %(day_start)s and hour < %(day_end)s
                group by hour, metric
                order by hour, metric
            """,
            "usage_realtime": """
                select hour, metric, sum(event_count)::bigint, sum(value_sum)
                from rollups.usage_realtime
                where tenant_id = %(tenant)s and hour >= %(day_start)s and hour < %(day_end)s
                group by hour, metric
                order by hour, metric
            """,
            "ledger, a scan": """
                select date_bin('1 hour', occurred_at, '2000-01-01Z') as hour, metric, count(*), sum(quantity)
                from ledger.usage_events
                inner join catalog.metrics using (event_type)
                where tenant_id = %(tenant)s and occurred_at >= %(day_start)s and occurred_at < %(day_end)s
                group by hour, metric
                order by hour, metric
            """,
        },
    ),
]


def measure(
    report: Report, server: psutil.Process, connection: psycopg.Connection, size: str, days: int
) -> None:
    """Ask each question of each source. Raises RuntimeError if ledger and real-time view disagree."""
    for question in QUESTIONS:
        answers = {}
        for source, query in question.sources.items():
            times = SCANS if "scan" in source else READINGS
            asked = _Asked(connection, query, question.parameters(days))
            if times > SCANS:
                asked.ask(UNTIMED)
                asked.milliseconds.clear()
            cost = cost_of(server, lambda: asked.ask(times))  # noqa: B023  (called at once)
            count = len(asked.milliseconds)
            report.add_reading(
                Reading(size, question.name, source, asked.milliseconds, cost.cpu * 1000 / count)
            )
            answers[source] = asked.counts[:SCANS]
        if answers["usage_realtime"] != answers["ledger, a scan"]:
            raise RuntimeError(f"{question.name}: the real-time view is not what the ledger says")


class _Asked:
    """One query, its parameters, and how long each answer took, from the call to the last row."""

    def __init__(
        self,
        connection: psycopg.Connection,
        query: LiteralString,
        parameters: Iterator[Mapping[str, object]],
    ) -> None:
        self.cursor = connection.cursor(binary=True)
        self.query = query
        self.parameters = parameters
        self.milliseconds: list[float] = []
        self.counts: list[Answer] = []

    def ask(self, times: int) -> None:
        deadline = time.perf_counter() + SECONDS
        for asked in range(times):
            if asked >= SCANS and time.perf_counter() > deadline:
                return
            values = next(self.parameters)
            begun = time.perf_counter()
            rows = self.cursor.execute(self.query, values, prepare=True).fetchall()
            self.milliseconds.append((time.perf_counter() - begun) * 1000)
            self.counts.append(_counted(rows))


def _counted(rows: Sequence[tuple[Any, ...]]) -> Answer:
    """Without the sum: of the ledger's rows it is that of the quantities, whatever the metric reads."""
    return [row[:-1] for row in rows]
