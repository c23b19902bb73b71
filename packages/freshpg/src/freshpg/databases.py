"""The databases of one run on one server: the template, the copies, and those of single tests.

Every name begins with the run's own random prefix, and nothing else is ever written to or dropped, but for databases
that tests made on a server of ours. An ordinary role that may create databases is enough.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from .libpq import NO_TIMEOUTS, SecretURL, connect, database_url

NAME_PREFIX = "test_"
_OURS = "Made by a test run, which drops it."
_KEPT = "Kept for "
_END_SECONDS = 5.0

# A copy of a database does not get its comment, and each process of a run holds the advisory lock of the run's number.
_ORPHANS = """
    select datname from pg_database
     where datname ~ '^test_[0-9a-f]{10}_' and shobj_description(oid, 'pg_database') = %s
       and ('x' || substr(datname, 6, 10))::bit(40)::bigint not in (
           select (classid::bigint << 32) + objid::bigint from pg_locks where locktype = 'advisory' and objsubid = 1)
     order by datname
"""
_END: LiteralString = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
     where datname = %s and backend_type = 'client backend'
"""


class Databases:
    """Makes, copies and drops the databases of one run; `run_id` is ten hexadecimal digits."""

    def __init__(self, url: str, run_id: str) -> None:
        self.prefix = f"{NAME_PREFIX}{run_id}_"
        self._url = url
        self._key = int(run_id, 16)
        self._connection: psycopg.Connection[Any] | None = None

    def url_of(self, name: str) -> SecretURL:
        return SecretURL(database_url(self._url, name))

    def create(self, name: str, template: str = "template0") -> None:
        """Create a database, empty or as a copy of a template."""
        self._on(name, "create database {} template {} strategy file_copy", sql.Identifier(template))
        self._on(name, "comment on database {} is {}", sql.Literal(_OURS))

    def keep(self, name: str, test: str) -> None:
        """Have a database outlive the run, for the sake of a test."""
        self._on(name, "comment on database {} is {}", sql.Literal(_KEPT + test))

    def rename(self, name: str, new_name: str) -> None:
        """Rename a database, and end the connections to it."""
        self._end_connections(name)
        self._on(name, "alter database {} rename to {}", sql.Identifier(new_name))

    def drop(self, name: str) -> None:
        """Drop a database, and end the connections to it."""
        # Without FORCE, which an ordinary role may not use against an autovacuum worker.
        self._end_connections(name)
        self._on(name, "drop database if exists {}")

    def drop_all(self) -> None:
        """Drop every database of this run that is not kept; raise psycopg.Error if one cannot be dropped."""
        kept = self.kept()
        for name in self._names():
            if name not in kept:
                self.drop(name)

    def drop_foreign(self, names: Iterable[str]) -> list[str]:
        """Drop databases that are not of this run; return the names of those that were dropped."""
        dropped: list[str] = []
        for name in [name for name in names if not name.startswith(self.prefix)]:
            # One of another role is not ours to drop.
            with suppress(psycopg.Error):
                self.drop(name)
                dropped.append(name)
        return dropped

    def drop_orphans(self) -> list[str]:
        """Drop the databases that killed runs left; return their names."""
        orphans = self._administrative().execute(_ORPHANS, [_OURS]).fetchall()
        return self.drop_foreign(name for (name,) in orphans)

    def kept(self) -> dict[str, str]:
        """Return the databases that are kept, each with the test that failed on it."""
        query = (
            "select datname, shobj_description(oid, 'pg_database') from pg_database "
            "where starts_with(datname, %s) order by oid"
        )
        rows = self._administrative().execute(query, [self.prefix]).fetchall()
        return {name: text.removeprefix(_KEPT) for name, text in rows if (text or "").startswith(_KEPT)}

    def all(self) -> frozenset[str]:
        """Return the names of the databases on the server that are not PostgreSQL's own."""
        rows = self._administrative().execute("select datname from pg_database where oid >= 16384")
        return frozenset(name for (name,) in rows)

    def template(self, migrate: Callable[[str], object]) -> str:
        """Return the name of the template. The first process that asks runs `migrate`; the others wait.

        It gets its name when it is whole, and takes no connections from then on.
        """
        template, unfinished = f"{self.prefix}template", f"{self.prefix}unfinished"
        connection = self._administrative()
        connection.execute("select pg_advisory_lock(%s)", [-self._key])
        try:
            if template not in self._names():
                self.drop(unfinished)
                self.create(unfinished)
                migrate(self.url_of(unfinished))
                self.rename(unfinished, template)
                self._on(template, "alter database {} allow_connections false")
        finally:
            connection.execute("select pg_advisory_unlock(%s)", [-self._key])
        return template

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _names(self) -> list[str]:
        query = "select datname from pg_database where starts_with(datname, %s) order by 1"
        return [name for (name,) in self._administrative().execute(query, [self.prefix])]

    def _end_connections(self, name: str) -> None:
        """End the connections to a database and wait until they are gone."""
        deadline = time.monotonic() + _END_SECONDS
        # pg_terminate_backend could wait by itself, but looks every 100 ms.
        while self._administrative().execute(_END, [name]).fetchone() != (0,) and time.monotonic() < deadline:
            time.sleep(0.001)

    def _on(self, name: str, statement: LiteralString, *rest: sql.Composable) -> None:
        self._administrative().execute(sql.SQL(statement).format(sql.Identifier(name), *rest))

    def _administrative(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url)
            self._connection.execute(NO_TIMEOUTS)
            self._connection.execute("select pg_advisory_lock_shared(%s)", [self._key])
        return self._connection


def ensure_database(url: str, name: str) -> str:
    """Create the database on the server of this administrative URL unless it exists; return its URL."""
    with connect(url) as connection:
        # A role without the right to create databases may use one that exists.
        if connection.execute("select from pg_database where datname = %s", [name]).fetchone() is None:
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return database_url(url, name)
