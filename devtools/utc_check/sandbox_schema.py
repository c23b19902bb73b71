"""The separate schema of the proof, which is always dropped."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, event

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
    """Yield the engine, whose transactions see only this schema, and dispose of it at the end.

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
        event.remove(engine, "begin", set_search_path)
        engine.dispose()


@contextmanager
def plain_connection(url: URL) -> Iterator[psycopg.Connection[Any]]:
    """Open a plain psycopg connection in autocommit, like another program."""
    libpq_url = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(libpq_url, autocommit=True) as connection:
        yield connection
