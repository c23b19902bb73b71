"""The databases of one run on one server: the template, the copies, and those of single tests.

Every name begins with the run's own random prefix, and nothing else is ever written to or dropped, but for databases
that tests made on a server of ours. An ordinary role that may create databases is enough.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from .orphans import comment, drop_orphans, mark
from .server import CONNECT_SECONDS, SecretURL, database_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME_PREFIX = "test_"
_KEPT = "Kept for "
_END_SECONDS = 5.0
_FIRST_WITH_STRATEGIES = 150000


def new_run_id() -> str:
    """Return what tells this run's databases from all others on any server."""
    # Plugins seed `random`, and then two runs would meet under one name.
    return secrets.token_hex(5)


class Databases:
    """Makes, copies and drops the databases of one run; `owner` names the process that starts the run."""

    def __init__(self, url: str, run_id: str, owner: str) -> None:
        self.prefix = f"{NAME_PREFIX}{run_id}_"
        self._url = url
        self._owner = owner
        self._connection: psycopg.Connection[Any] | None = None

    def url_of(self, name: str) -> SecretURL:
        return SecretURL(database_url(self._url, name))

    def create(self, name: str, template: str = "template0") -> None:
        """Create a database, empty or as a copy of a template."""
        strategy = sql.SQL("")
        if self._administrative().info.server_version >= _FIRST_WITH_STRATEGIES:
            strategy = sql.SQL(" strategy file_copy")
        self._on(name, "create database {} template {}{}", sql.Identifier(template), strategy)
        mark(self._administrative(), name, self._owner)

    def replace(self, name: str, template: str) -> None:
        """Put a fresh copy of the template in a database's place, which ends the connections to it."""
        self.drop([name])
        self.create(name, template)

    def keep(self, name: str, kept_name: str, test: str) -> None:
        """Rename a database, which ends the connections to it, and have it outlive the run for the sake of a test."""
        if kept_name != name:
            self.end_connections(name)
            self._on(name, "alter database {} rename to {}", sql.Identifier(kept_name))
        comment(self._administrative(), kept_name, _KEPT + test)

    def drop(self, names: Iterable[str]) -> None:
        """Drop databases, and end the connections to them."""
        for name in names:
            # Without FORCE, which an ordinary role may not use against an autovacuum worker.
            self.end_connections(name)
            self._on(name, "drop database if exists {}")

    def drop_all(self) -> list[str]:
        """Drop every database of this run that is not kept; return the names of those that could not be dropped."""
        failed = []
        kept = self.kept()
        for name in self._names():
            if name not in kept:
                try:
                    self.drop([name])
                except psycopg.Error:
                    failed.append(name)
        return failed

    def drop_foreign(self, names: Iterable[str]) -> None:
        """Drop databases that a test made on a server of ours."""
        for name in names:
            with suppress(psycopg.Error):
                self._administrative().execute(
                    sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
                )

    def drop_orphans(self) -> list[str]:
        """Drop the databases that killed runs of this machine left; return their names."""
        return drop_orphans(self._administrative(), NAME_PREFIX)

    def kept(self) -> dict[str, str]:
        """Return the databases that are kept, each with the test that failed on it."""
        query = (
            "select datname, shobj_description(oid, 'pg_database') from pg_database "
            "where starts_with(datname, %s) order by oid"
        )
        rows = self._administrative().execute(query, [self.prefix]).fetchall()
        return {name: text.removeprefix(_KEPT) for name, text in rows if (text or "").startswith(_KEPT)}

    def others(self) -> frozenset[str]:
        """Return the names of the databases on the server that are neither this run's nor PostgreSQL's own."""
        query = "select datname from pg_database where oid >= 16384 and not starts_with(datname, %s)"
        return frozenset(name for (name,) in self._administrative().execute(query, [self.prefix]))

    def template(self, migrate: Callable[[str], object]) -> str:
        """Return the name of the template; the first process of the run that asks has `migrate` make it.

        The others wait. It gets its name when it is whole, and takes no connections from then on.
        """
        template, unfinished = f"{self.prefix}template", f"{self.prefix}unfinished"
        key = int(self.prefix.removeprefix(NAME_PREFIX).rstrip("_"), 16)
        connection = self._administrative()
        connection.execute("select pg_advisory_lock(%s)", [key])
        try:
            if template not in self._names():
                self.drop([unfinished])
                self.create(unfinished)
                migrate(self.url_of(unfinished))
                self.end_connections(unfinished)
                self._on(unfinished, "alter database {} rename to {}", sql.Identifier(template))
                self._on(template, "alter database {} allow_connections false")
        finally:
            connection.execute("select pg_advisory_unlock(%s)", [key])
        return template

    def end_connections(self, name: str) -> None:
        """End the connections to a database and wait until they are gone."""
        condition: LiteralString = "datname = %s and backend_type = 'client backend'"
        count: LiteralString = f"select count(*) from pg_stat_activity where {condition}"  # noqa: S608 (a constant)
        end: LiteralString = f"select pg_terminate_backend(pid) from pg_stat_activity where {condition}"  # noqa: S608
        deadline = time.monotonic() + _END_SECONDS
        self._administrative().execute(end, [name])
        # pg_terminate_backend could wait by itself, but looks every 100 ms.
        while (
            self._administrative().execute(count, [name]).fetchone() != (0,) and time.monotonic() < deadline
        ):
            time.sleep(0.001)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _names(self) -> list[str]:
        query = "select datname from pg_database where starts_with(datname, %s) order by 1"
        return [name for (name,) in self._administrative().execute(query, [self.prefix])]

    def _on(self, name: str, statement: LiteralString, *rest: sql.Composable) -> None:
        """Run a statement on a database of this run, and on no other."""
        if not name.startswith(self.prefix):
            raise ValueError(f"{name} is not a database of this run")
        self._administrative().execute(sql.SQL(statement).format(sql.Identifier(name), *rest))

    def _administrative(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_SECONDS)
        return self._connection
