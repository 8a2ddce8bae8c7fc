"""Every row of ledger, rollups and rating, as two databases can be compared by."""

from collections import Counter

import psycopg
from psycopg import sql

STAGES = ["ledger", "rollups", "rating"]

TABLES = """
select table_schema, table_name
from information_schema.tables
where table_schema = any(%s) and table_name !~ '_[0-9]{8}$'
order by 1, 2
"""

# Rows as JSON; a file goes by its key, since its number says only which file came first.
ROWS = """
select (to_jsonb(rows) - array['file_id', 'latest_file_id', 'recorded_at']) || jsonb_build_object(
    'file_key',
    (select file_key from landing.files where file_id = (to_jsonb(rows) ->> 'file_id')::bigint)
)
from {} as rows
"""


def snapshot(connection: psycopg.Connection) -> dict[str, Counter[str]]:
    """Every table's rows, as text, with how often each is there."""
    tables = connection.execute(TABLES, [STAGES]).fetchall()
    return {
        f"{schema}.{table}": Counter(
            str(row)
            for (row,) in connection.execute(
                sql.SQL(ROWS).format(sql.Identifier(schema, table))
            ).fetchall()
        )
        for schema, table in tables
    }
