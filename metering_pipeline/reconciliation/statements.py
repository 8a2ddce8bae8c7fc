"""SQL statements by name: each is a file of a package's folder ``sql``."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

NO_PARAMETERS: Mapping[str, Any] = {}


@cache
def statement(package: str, name: str) -> bytes:
    """The statement ``<package>/sql/<name>.sql``, for psycopg with named parameters.

    Raises FileNotFoundError for a name that the package does not have.
    """
    return files(package).joinpath("sql", f"{name}.sql").read_bytes()


def rows(
    connection: psycopg.Connection,
    package: str,
    name: str,
    parameters: Mapping[str, Any] = NO_PARAMETERS,
) -> list[Any]:
    """The rows that a statement gives, their columns as attributes."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return list(cursor.execute(statement(package, name), parameters))
