"""Views and functions that stand as the project defines them: no run need ask dbt to look at each of them again.

Each says in its comment of which definition it was made (view.sql). Once dbt has looked at all, what these comments say
is kept together with the project's digest; while both are the same, nothing is to be made.
"""

import hashlib

import psycopg

from metering_pipeline.postgres import Database
from metering_pipeline.transform.dbt import project_digest

SETTING = "definitions_sha256"

REMARKS = """
select coalesce(string_agg(description, E'\\n' order by description), '')
from pg_description
where objsubid = 0 and description like 'Defined by %'
"""


def all_stand(database: Database) -> bool:
    """Whether every view and function is as it was when dbt had looked at all of this project."""
    with database.connect() as connection:
        kept = connection.execute(
            "select value from catalog.settings where name = %s", (SETTING,)
        ).fetchone()
        return kept == (_digest(connection),)


def remember_all(database: Database) -> None:
    """Keep that dbt has looked at all of them."""
    with database.connect() as connection:
        connection.execute(
            "insert into catalog.settings (name, value) values (%s, %s)"
            " on conflict (name) do update set value = excluded.value",
            (SETTING, _digest(connection)),
        )


def _digest(connection: psycopg.Connection) -> str:
    (remarks,) = connection.execute(REMARKS).fetchall()[0]
    return hashlib.sha256(f"{project_digest()}\n{remarks}".encode()).hexdigest()
