"""The separate schema of the proof, which is always dropped, the connections to it, and the tables that are tried."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
from fastapi.testclient import TestClient
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Column, Connection, Engine, Table, event, insert

from backend.database_url import libpq_parameters
from backend.models.models import Company, JobQueue
from backend.utc import UtcDateTime

# A schema that a killed run left behind has this name and this comment, and nobody holds its lock.
PREFIX = "utc_check_"
COMMENT = "nox -s utc_check works in this schema and drops it at the end."


@contextmanager
def sandbox_schema(url: URL) -> Iterator[str]:
    """Create a schema, and drop it at the end. Schemas that killed runs left behind are dropped too."""
    schema = f"{PREFIX}{secrets.token_hex(6)}"
    with plain_connection(url) as owner:
        owner.execute("SET lock_timeout = '10s'")
        for (left,) in owner.execute(
            "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s) "
            "AND obj_description(oid, 'pg_namespace') = %s AND pg_has_role(nspowner, 'MEMBER')",
            [PREFIX, COMMENT],
        ).fetchall():
            if owner.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [left]).fetchone() == (True,):
                owner.execute(f"DROP SCHEMA IF EXISTS {left} CASCADE".encode())
        owner.execute("SELECT pg_advisory_lock(hashtext(%s))", [schema])
        with owner.transaction():
            owner.execute(f"CREATE SCHEMA {schema}".encode())
            owner.execute(f"COMMENT ON SCHEMA {schema} IS '{COMMENT}'".encode())
        try:
            yield schema
        finally:
            owner.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


@contextmanager
def confined(engine: Engine, schema: str, *, style: str | None = None) -> Iterator[Engine]:
    """Yield the engine, whose transactions see only this schema from now on, and dispose of it at the end.

    A setting of the session would leak to others behind a pooler in transaction mode.
    """

    def set_search_path(connection: Connection) -> None:
        raw: Any = connection.connection.driver_connection
        if raw.autocommit:
            raise RuntimeError("the proof needs transactions, and this engine is in autocommit")
        raw.execute(f"SET LOCAL search_path TO {schema}")
        if style:
            raw.execute(f"SET LOCAL datestyle TO '{style}'")

    event.listen(engine, "begin", set_search_path)
    try:
        yield engine
    finally:
        engine.dispose()


def plain_connection(url: URL) -> psycopg.Connection[Any]:
    """Open a plain psycopg connection in autocommit, like another program; use it in a `with` block."""
    return psycopg.connect(make_conninfo(**libpq_parameters(url)), autocommit=True)


MICROSECONDS = "(extract(epoch FROM {0}) * 1000000)::int8"
"""Microseconds since 1970, which do not depend on rendering or zones."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A schema, and the connections to it."""

    schema: str
    zone: str
    """The initial zone of sessions that are not pinned."""
    engine: Engine
    """Pinned, as the application's."""
    unpinned: Engine
    """An engine with our models that nobody pinned."""
    plain: psycopg.Connection[Any]
    """A client without our code, in autocommit. It also reads the stored microseconds."""
    client: TestClient


@dataclass(frozen=True)
class Subject:
    """A table, and the other values that its rows need."""

    target: Target
    model: type[Any]
    fixed: Row
    listing: str = ""
    """The path of the API that lists the rows and creates them, for which `fixed` is enough."""

    @cached_property
    def table(self) -> Table:
        table: Table = self.model.__table__
        return table

    @cached_property
    def key(self) -> Column[Any]:
        (key,) = self.table.primary_key
        return key

    @cached_property
    def names(self) -> list[str]:
        """The columns that hold timestamps."""
        return [column.name for column in self.table.c if isinstance(column.type, UtcDateTime)]

    @property
    def changeable(self) -> list[str]:
        return [name for name in self.names if name not in ("created_at", "updated_at")]

    @property
    def full_name(self) -> str:
        return f"{self.target.schema}.{self.table.name}"

    def row(self, value: object) -> Row:
        """Return a row with the value in each timestamp."""
        return self.fixed | dict.fromkeys(self.names, value)

    def insert(self, row: Row, place: str) -> str:
        """Return the statement that inserts rows like this one, with a placeholder of this form for each value."""
        places = ", ".join(place.format(name) for name in row)
        return f"INSERT INTO {self.full_name} ({', '.join(row)}) VALUES ({places})"

    def select(self, after: int, what: str = "{0}") -> str:
        """Return the query for the rows above this key, with this expression of each timestamp."""
        columns = ", ".join([self.key.name, *(what.format(name) for name in self.names)])
        return (
            f"SELECT {columns} FROM {self.full_name} WHERE {self.key.name} > {after} ORDER BY {self.key.name}"
        )

    def stored(self, after: int) -> list[tuple[Any, ...]]:
        """Return the stored rows above this key, by a connection without our code."""
        return self.target.plain.execute(self.select(after, MICROSECONDS).encode()).fetchall()

    def last_key(self) -> int:
        return self.number(f"SELECT coalesce(max({self.key.name}), 0) FROM {self.full_name}")

    def number(self, query: str) -> int:
        return int(self.target.plain.execute(query.encode()).fetchall()[0][0])


def make_subjects(target: Target) -> list[Subject]:
    """Return two tables, one of which the API serves. The other tables have columns of the same types."""
    with target.engine.begin() as connection:
        company = connection.scalars(insert(Company).values(name="Tenant").returning(Company.id)).one()
    # A job that has ended may have all of its timestamps.
    job = {"company_id": company, "job_type": "proof", "status": "succeeded"}
    return [Subject(target, Company, {"name": "Proof"}, "/api/v1/companies"), Subject(target, JobQueue, job)]
