"""What came in beside the events that count: each kind with its count and samples that lead to file and line.

Shown by ``metering status`` and by the warning checks. A sample names the record and never shows what it says:
quantity, properties and raw bytes are the customers'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from metering_pipeline.settings import HOUR


@dataclass(frozen=True)
class Found:
    """One record: where it landed, and as much of who, when and why as is known of it."""

    landed_hour: datetime
    file_key: str | None
    line_number: int | None
    tenant_id: str | None
    event_type: str | None
    occurred_at: datetime | None
    correlation_id: str | None
    reason: str | None
    detail: str | None


@dataclass(frozen=True)
class Hours:
    """Landing hours from start up to, not including, end; None: unbounded."""

    start: datetime | None = None
    end: datetime | None = None

    def bounds(self) -> sql.Composable:
        edges = [("landed_hour >= {}", self.start), ("landed_hour < {}", self.end)]
        given = [sql.SQL(text).format(sql.Literal(edge)) for text, edge in edges if edge]
        return sql.SQL(" and ").join([sql.SQL("true"), *given])


ALWAYS = Hours()


@dataclass(frozen=True)
class Finding:
    """A kind of record to know of. The query gives Found's columns for all that there are.

    Ordinary ones need nobody. Standing ones stay until they are mended, however old they are; the others are
    news of the hours in which they landed.
    """

    name: str
    says: str
    query: sql.Composable
    ordinary: bool = False
    standing: bool = False

    def counts(self, connection: psycopg.Connection, hours: Hours) -> Mapping[str | None, int]:
        """How many there are by reason (None where there is but one), the most frequent first."""
        query = sql.SQL(
            "select reason, count(*) from ({}) as found where {} group by reason order by 2 desc, 1"
        )
        return dict(connection.execute(query.format(self.query, hours.bounds())).fetchall())

    def samples(
        self, connection: psycopg.Connection, hours: Hours, reason: str | None, limit: int
    ) -> list[Found]:
        """The newest of a reason."""
        query = sql.SQL(
            "select * from ({}) as found where {} and reason is not distinct from {}"
            " order by landed_hour desc limit {}"
        ).format(self.query, hours.bounds(), sql.Literal(reason), sql.Literal(limit))
        with connection.cursor(row_factory=class_row(Found)) as cursor:
            return cursor.execute(query).fetchall()

    def hours(self, hours: Hours) -> Hours:
        """The hours to look at when asked for those."""
        return ALWAYS if self.standing else hours


def newest_hours(connection: psycopg.Connection) -> Hours:
    """The newest landing hours that hold files, as many as the rescan of late files reaches back."""
    row = connection.execute(
        """
        select
            max(landed_hour) - catalog.setting_hours('landing_rescan_hours'),
            max(landed_hour)
        from landing.hours
        where file_count > 0
        """
    ).fetchone()
    start, last = row or (None, None)
    return ALWAYS if start is None else Hours(start + HOUR, last + HOUR)


def _copies(table: str, reason: str = "null", detail: str = "null") -> sql.Composable:
    """The rows of a table of the ledger: each is a copy that landed."""
    return sql.SQL(
        """
        select
            copies.landed_hour,
            (select files.file_key from landing.files where files.file_id = copies.file_id) as file_key,
            copies.line_number,
            copies.tenant_id,
            copies.event_type,
            copies.occurred_at,
            copies.correlation_id,
            {reason}::text as reason,
            {detail}::text as detail
        from ledger.{table} as copies
        """
    ).format(table=sql.Identifier(table), reason=sql.SQL(reason), detail=sql.SQL(detail))


NOT_POSTED = Finding(
    "hours not posted",
    "landed, but not yet in the ledger",
    sql.SQL(
        """
        select
            landed_hour,
            null as file_key,
            null::bigint as line_number,
            null as tenant_id,
            null as event_type,
            null::timestamptz as occurred_at,
            null as correlation_id,
            null as reason,
            to_char(landed_at at time zone 'UTC', '"landed at" YYYY-MM-DD"T"HH24:MI:SS"Z"') as detail
        from landing.hours
        where landed_at is not null and posted_at is null
        """
    ),
    standing=True,
)
VANISHED = Finding(
    "vanished files",
    "no longer where they were landed from; what they held still counts",
    sql.SQL(
        """
        select
            landed_hour,
            file_key,
            null::bigint as line_number,
            null as tenant_id,
            null as event_type,
            null::timestamptz as occurred_at,
            null as correlation_id,
            null as reason,
            to_char(missing_since at time zone 'UTC', '"not seen since" YYYY-MM-DD"T"HH24:MI:SS"Z"') as detail
        from landing.files
        where missing_since is not null and superseded_by is null
        """
    ),
    standing=True,
)


def _manifest_problems(reason: str, detail: str, wanted: str) -> sql.Composable:
    return sql.SQL(
        """
        select
            landed_hour,
            file_key,
            null::bigint as line_number,
            null as tenant_id,
            null as event_type,
            null::timestamptz as occurred_at,
            null as correlation_id,
            {reason} as reason,
            {detail} as detail
        from reconciliation.manifest_problems
        where {wanted}
        """
    ).format(reason=sql.SQL(reason), detail=sql.SQL(detail), wanted=sql.SQL(wanted))


MANIFESTS = Finding(
    "control totals",
    "what producers say that they sent is not what landed",
    _manifest_problems("reason", "detail", "reason <> 'manifest_awaited' and waived_at is null"),
    standing=True,
)
WAIVED = Finding(
    "waived",
    "differences of control totals that somebody let pass",
    _manifest_problems(
        "null",
        "format('by %s (%s): %s', waived_by, waiver_reason, detail)",
        "waived_at is not null",
    ),
    ordinary=True,
    standing=True,
)
REJECTED = Finding(
    "rejected",
    "records that are not valid events",
    sql.SQL(
        """
        select
            rejected.landed_hour,
            files.file_key,
            nullif(rejected.line_number, 0) as line_number,
            null as tenant_id,
            null as event_type,
            null::timestamptz as occurred_at,
            null as correlation_id,
            rejected.reason,
            null as detail
        from landing.rejected_events as rejected
        inner join landing.files on rejected.file_id = files.file_id
        where files.superseded_by is null
        """
    ),
)
WITHDRAWN = Finding(
    "withdrawn",
    "no longer in the newer version of their file",
    _copies("withdrawn", "copies.kind"),
)
CONFLICTS = Finding(
    "conflicts",
    "copies that say something else than the event counted",
    _copies("conflicts"),
)
SUSPECTS = Finding(
    "suspects",
    "look like retries that were given a new time; they count",
    _copies(
        "suspects",
        detail="""to_char(
            copies.first_occurred_at at time zone 'UTC', '"(first at" YYYY-MM-DD"T"HH24:MI:SS.US"Z)"'
        )""",
    ),
    standing=True,
)
DUPLICATES = Finding(
    "duplicates",
    "further copies, counted once",
    _copies("duplicates", "copies.kind"),
    ordinary=True,
)
VOIDS = Finding("voids", "events canceled by their producer", _copies("voids"), ordinary=True)

FINDINGS = (
    NOT_POSTED, VANISHED, MANIFESTS, REJECTED, WITHDRAWN, CONFLICTS, SUSPECTS, WAIVED, DUPLICATES, VOIDS,
)  # fmt: skip
"""What needs a person first."""
