"""What a listing of the landing root says: which hours are there, which are landed, which sealed."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg

from metering_pipeline.landing.sources import Contents, Source, SourceFile, Unknown
from metering_pipeline.postgres import LEDGER_LOCK
from metering_pipeline.settings import HOUR, Settings, hour_of


@dataclass(frozen=True)
class Listing:
    """What a listing of the landing root found and wrote into ``landing.hours``."""

    hours: int
    """Hours listed, each with a row: from the first one, or the one asked for, to the present one."""
    sealed: int
    """Of these, the sealed ones."""
    unlanded_hours: tuple[datetime, ...]
    """Hours with files or manifests that are not landed, or whose size or modification time is another since."""
    unposted_hours: tuple[datetime, ...]
    """Hours that are over, and landed, but not posted to the ledger since."""
    unknown: tuple[Unknown, ...]
    """What lies below the root and cannot be landed, unreadable files included; an hour that holds
    such a thing is not sealed."""
    missing: int
    """Files that were landed in these hours and are not in the landing root any more; they count on."""
    missing_sample: tuple[str, ...]
    """Some of them, the ones missed last."""
    files: dict[datetime, list[SourceFile]] = field(repr=False)
    """By hour, manifests included."""

    def digest_of(self, landed_hour: datetime) -> str:
        """A digest of the hour's files as listed: it changes when a file appears or changes."""
        described = repr(
            [(f.key, f.size_bytes, f.modified) for f in self.files.get(landed_hour, [])]
        )
        return hashlib.sha256(described.encode()).hexdigest()[:32]


def list_hours(
    url: str, settings: Settings, now: datetime, since: datetime | None = None
) -> Listing:
    """List the landing root and write ``landing.hours``, one row an hour, in one transaction.

    Rows reach from the first hour to that of ``now``. With ``since``, hours before it are neither
    listed nor written, provided that each has a row. Raises SourceError, psycopg.Error.
    """
    source = Source(settings.landing_root)
    with psycopg.connect(url, autocommit=True) as connection:
        if since is None or since <= settings.first_hour:
            return _write(connection, settings, now, settings.first_hour, source.list_all())
        [(before, files)] = connection.execute(
            _KNOWN, {"first_hour": settings.first_hour, "since": since}
        ).fetchall()
        if before < (since - settings.first_hour) // HOUR:
            return _write(connection, settings, now, settings.first_hour, source.list_all())
        recent = source.list_since(since, hour_of(now), files)
        return _write(connection, settings, now, since, recent)


def _write(
    connection: psycopg.Connection,
    settings: Settings,
    now: datetime,
    first_hour: datetime,
    contents: Contents,
) -> Listing:
    last_hour = hour_of(now)
    unknown = contents.unknown + _outside(contents, settings.first_hour, last_hour)
    files = _within(contents.files, first_hour, last_hour)
    manifests = _within(contents.manifests, first_hour, last_hour)
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", (LEDGER_LOCK,))
        span = {"first_hour": first_hour, "last_hour": last_hour, "now": now}
        as_listed = span | _columns(files)
        [(waiting,)] = connection.execute(_NOTE_MANIFESTS, span | _columns(manifests)).fetchall()
        unknown += [
            unreadable(key, hour.astimezone(UTC), detail)
            for key, hour, detail in connection.execute(_UNREADABLE, as_listed)
        ]
        [(hours, sealed, unlanded, unposted)] = connection.execute(
            _LIST_HOURS,
            as_listed
            | {
                "unlandable": [each.landed_hour for each in unknown if each.landed_hour] + waiting,
                "sealed_until": now - timedelta(minutes=settings.settle_minutes) - HOUR,
            },
        ).fetchall()
        connection.execute(_NOTE_MISSING, as_listed)
        [(missing, missing_sample)] = connection.execute(_MISSING, as_listed).fetchall()
    unlanded_hours = tuple(hour.astimezone(UTC) for hour in sorted({*unlanded, *waiting}))
    unposted_hours = tuple(hour.astimezone(UTC) for hour in unposted)
    return Listing(
        hours,
        sealed,
        unlanded_hours,
        unposted_hours,
        tuple(unknown),
        missing,
        tuple(missing_sample),
        {hour: files.get(hour, []) + manifests.get(hour, []) for hour in {*files, *manifests}},
    )


def _within(
    found: dict[datetime, list[SourceFile]], first_hour: datetime, last_hour: datetime
) -> dict[datetime, list[SourceFile]]:
    return {hour: files for hour, files in found.items() if first_hour <= hour <= last_hour}


def _columns(found: dict[datetime, list[SourceFile]]) -> dict[str, list[object]]:
    listed = [file for files in found.values() for file in files]
    return {
        "file_keys": [file.key for file in listed],
        "sizes": [file.size_bytes for file in listed],
        "modified": [file.modified for file in listed],
        "hours": [file.landed_hour for file in listed],
    }


def unreadable(file_key: str, landed_hour: datetime, detail: str) -> Unknown:
    """Nothing of the file counts, so the hour's usage is not complete: replace or remove the file."""
    return Unknown(file_key, landed_hour, f"unreadable: {detail}")


def _outside(contents: Contents, first_hour: datetime, last_hour: datetime) -> list[Unknown]:
    """Folders of hours that have no place yet, or no longer."""
    return [
        Unknown(
            f"landed_hour={hour:%Y-%m-%dT%H}",
            hour,
            "the hour lies before METERING_FIRST_HOUR; move its files to a later folder"
            if hour < first_hour
            else "the hour has not begun; it is landed when it has",
        )
        for hour in sorted({*contents.files, *contents.manifests})
        if not first_hour <= hour <= last_hour
    ]


_KNOWN = """
select
    count(*) filter (where landed_hour < %(since)s::timestamptz),
    coalesce(sum(file_count), 0)
from landing.hours
where landed_hour >= %(first_hour)s::timestamptz
"""

_UNREADABLE = """
with listed as (
    select *
    from unnest(
        %(file_keys)s::text[], %(sizes)s::bigint[], %(modified)s::timestamptz[], %(hours)s::timestamptz[]
    ) as listed (file_key, size_bytes, modified_at, landed_hour)
)

select
    listed.file_key,
    listed.landed_hour,
    rejected.detail
from listed
inner join landing.files
    on listed.file_key = files.file_key
    and listed.size_bytes = files.size_bytes
    and listed.modified_at = files.modified_at
    and files.superseded_by is null
inner join landing.rejected_events as rejected
    on files.file_id = rejected.file_id
    and rejected.line_number = 0
    and rejected.reason = 'unreadable_file'
order by listed.file_key collate "C"
"""

_LIST_HOURS = """
with listed as (
    select *
    from unnest(
        %(file_keys)s::text[], %(sizes)s::bigint[], %(modified)s::timestamptz[], %(hours)s::timestamptz[]
    ) as listed (file_key, size_bytes, modified_at, landed_hour)
),

by_hour as (
    select
        listed.landed_hour,
        count(*) as file_count,
        bool_and(files.file_id is not null) as all_landed
    from listed
    left join landing.files
        on listed.file_key = files.file_key
        and listed.size_bytes = files.size_bytes
        and listed.modified_at = files.modified_at
        and files.superseded_by is null
    group by listed.landed_hour
),

written as (
    insert into landing.hours as hours (landed_hour, file_count, listed_at, sealed)
    select
        hour,
        coalesce(by_hour.file_count, 0),
        %(now)s::timestamptz,
        hour <= %(sealed_until)s::timestamptz
        and coalesce(by_hour.all_landed, true)
        and hour <> all (%(unlandable)s::timestamptz[])
    from generate_series(
        %(first_hour)s::timestamptz, %(last_hour)s::timestamptz, interval '1 hour'
    ) as hour
    left join by_hour on hour = by_hour.landed_hour
    on conflict (landed_hour) do update
        set file_count = excluded.file_count, listed_at = excluded.listed_at, sealed = excluded.sealed
    returning hours.landed_hour, hours.landed_at, hours.posted_at, hours.sealed
)

select
    count(*),
    count(*) filter (where written.sealed),
    array(select by_hour.landed_hour from by_hour where not by_hour.all_landed order by 1),
    array(
        select unposted.landed_hour
        from written as unposted
        where
            unposted.landed_at is not null
            and unposted.posted_at is null
            and unposted.landed_hour < %(last_hour)s::timestamptz
        order by 1
    )
from written
"""

_NOTE_MANIFESTS = """
with listed as (
    select *
    from unnest(
        %(file_keys)s::text[], %(sizes)s::bigint[], %(modified)s::timestamptz[], %(hours)s::timestamptz[]
    ) as listed (file_key, size_bytes, modified_at, landed_hour)
),

noted as (
    update landing.manifests
    set missing_since = case when landed.is_missing then %(now)s::timestamptz end
    from (
        select
            manifests.manifest_id,
            manifests.superseded_by is null and listed.file_key is null as is_missing
        from landing.manifests
        left join listed on manifests.file_key = listed.file_key
        where manifests.landed_hour between %(first_hour)s::timestamptz and %(last_hour)s::timestamptz
    ) as landed
    where manifests.manifest_id = landed.manifest_id and (manifests.missing_since is null) = landed.is_missing
)

select array(
    select distinct listed.landed_hour
    from listed
    left join landing.manifests
        on listed.file_key = manifests.file_key
        and listed.size_bytes = manifests.size_bytes
        and listed.modified_at = manifests.modified_at
        and manifests.superseded_by is null
    where manifests.manifest_id is null
)
"""

_NOTE_MISSING = """
update landing.files
set
    missing_since
    = case when landed.superseded_by is null and listed.file_key is null then %(now)s::timestamptz end
from landing.files as landed
left join unnest(%(file_keys)s::text[]) as listed (file_key) on landed.file_key = listed.file_key
where
    files.file_id = landed.file_id
    and landed.landed_hour between %(first_hour)s::timestamptz and %(last_hour)s::timestamptz
    and (landed.missing_since is null)
    = (landed.superseded_by is null and listed.file_key is null)
"""

_MISSING = """
with missing as (
    select
        file_key,
        missing_since
    from landing.files
    where
        missing_since is not null
        and landed_hour between %(first_hour)s::timestamptz and %(last_hour)s::timestamptz
)

select
    (select count(*) from missing),
    array(select file_key from missing order by missing_since desc, file_key limit 10)
"""
