"""Databases that one run makes for itself, on a server that may be somebody else's.

Every name begins with the run's own random prefix; nothing that does not is ever written to or dropped. All of it is
within the rights of an ordinary role that may create databases.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from .marks import drop_abandoned, mark, note_on
from .seeds import IMAGE_SETTING, INSIDE_SETTING, SEEDED_TEMPLATE, WANTED_SETTING
from .server import database_url, without_password_of
from .template_seed import make_template_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

CONNECT_SECONDS = 10
LOCK_SECONDS = 5.0

_EMPTY = "template0"


class TemplateUnavailable(Exception):  # noqa: N818 (it says what is so)
    """What prepares the template left it unusable; no test of this run tries that again."""


def new_run_id() -> str:
    """Return what tells this run's databases from all others, on any server."""
    # `random` would do, but plugins seed it, and then two runs would meet under one name.
    return secrets.token_hex(5)


def ensure_database(url: str, name: str) -> str:
    """Create the database on the server of this administrative URL if it is not there; return its URL."""
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
        # Asked first, for a role without the right to create databases may use one that exists.
        if connection.execute("select from pg_database where datname = %s", [name]).fetchone() is None:
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return database_url(url, name)


class Databases:
    """Makes, clones and drops the databases of one run on one server."""

    def __init__(self, url: str, run_id: str) -> None:
        self.url = url
        self.prefix = f"test_{run_id}_"
        self._connection: psycopg.Connection | None = None

    def url_of(self, name: str) -> str:
        return database_url(self.url, self._own(name))

    def create(self, name: str, template: str = _EMPTY) -> str:
        """Create a database, empty or as a copy of one of this run's, and return its URL."""
        strategy = sql.SQL("")
        if template != _EMPTY:
            self._own(template)
            if self._administrative().info.server_version >= 150000:  # noqa: PLR2004 (the first to have strategies)
                strategy = sql.SQL(" strategy file_copy")
        statement = sql.SQL("create database {} template {}{}")
        self._run(statement.format(sql.Identifier(self._own(name)), sql.Identifier(template), strategy))
        mark(self._administrative(), name)
        return self.url_of(name)

    def set_aside(self, name: str, aside: str) -> None:
        """Rename a database, and end the connections to it: its name is free for another."""
        old, new = sql.Identifier(self._own(name)), sql.Identifier(self._own(aside))
        self._administrative().execute(
            # An autovacuum worker leaves by itself, and is not an ordinary role's to end.
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where datname = %s and backend_type = 'client backend'",
            [name],
        )
        self._run(sql.SQL("alter database {} rename to {}").format(old, new))

    def drop(self, names: Iterable[str]) -> None:
        """Drop databases, and end the connections that are still open to them."""
        for name in names:
            statement = sql.SQL("drop database if exists {}").format(sql.Identifier(self._own(name)))
            try:
                self._run(statement + sql.SQL(" with (force)"))
            except psycopg.errors.InsufficientPrivilege:
                # An autovacuum worker is the superuser's, and not an ordinary role's to end. Without force PostgreSQL
                # sends it away by itself.
                self._administrative().execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                    "where datname = %s and usename = current_user",
                    [name],
                )
                self._run(statement)

    def drop_all(self, *, but: Collection[str] = ()) -> list[str]:
        """Drop every database of this run, whichever process made it; return the names of those that would not go."""
        left = []
        for name in self.names():
            if name in but:
                continue
            try:
                self.drop([name])
            except psycopg.Error:
                left.append(name)
        return left

    def names(self) -> list[str]:
        """Return the names of this run's databases that exist."""
        query = "select datname from pg_database where starts_with(datname, %s) order by 1"
        return [name for (name,) in self._administrative().execute(query, [self.prefix])]

    def drop_abandoned(self) -> list[str]:
        """Drop what killed runs of this machine left, of any run id; return the names. See `marks.py`."""
        return drop_abandoned(self._administrative(), "test_")

    def template(self, prepare: Callable[[str], None], *, ours: bool = True) -> str:
        """Return the name of the template, having `prepare` bring a new database to its schema if there is none yet.

        Processes that ask at the same time wait for the first. The template only gets its name when it is whole,
        and then takes no connections, so that a copy is never held up. What `prepare` raises comes through to the
        first that asks; the others, of whichever process, are told by TemplateUnavailable. A server that grew from a
        seed has the template already; one for which there was no seed yet has one made now, by `prepare` on a server
        of its own, after those that wait were served. Neither is so where the server is not `ours`: one that an earlier
        run left running was started for what made the template then.
        """
        template, making = f"{self.prefix}template", f"{self.prefix}making"
        wanted = None
        with self._alone():
            if template not in self.names() and not (ours and self._take_seeded(template)):
                wanted = self._setting(WANTED_SETTING) if ours else None
                self._check_not_failed(making)
                self.drop([making])
                url = self.create(making)
                try:
                    prepare(url)
                except Exception as error:
                    said = without_password_of(url, " ".join(str(error).split()).replace(url, "its URL"))
                    self._remember_failure(making, f"postgres_prepare failed: {type(error).__name__}: {said}")
                    raise
                old, new = sql.Identifier(making), sql.Identifier(template)
                try:
                    self._run(sql.SQL("alter database {} rename to {}").format(old, new))
                except psycopg.errors.ObjectInUse:
                    told = (
                        "postgres_prepare left connections open to the database that it prepared; close them."
                    )
                    self._remember_failure(making, told)
                    raise TemplateUnavailable(told) from None
                self._run(sql.SQL("alter database {} allow_connections false").format(new))
        if wanted:
            make_template_seed(wanted, prepare, image=self._setting(IMAGE_SETTING))
        return template

    def _take_seeded(self, template: str) -> bool:
        """Give the template that the server began with this run's name; return False where there is none."""
        if self._setting(INSIDE_SETTING) != SEEDED_TEMPLATE:
            return False
        statement = sql.SQL("alter database {} rename to {}")
        # A server that outlives a run has given it away before.
        with suppress(psycopg.errors.InvalidCatalogName):
            self._run(statement.format(sql.Identifier(SEEDED_TEMPLATE), sql.Identifier(template)))
            return True
        return False

    def _setting(self, name: str) -> str | None:
        """Return a setting by which we started the server; None where somebody else did."""
        row = self._administrative().execute("select current_setting(%s, true)", [name]).fetchone()
        return row[0] if row is not None else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _remember_failure(self, making: str, told: str) -> None:
        """Note it with the database that was being made, where every process of the run finds it."""
        # A server that went away meanwhile is its own failure, and no second one is wanted over the first.
        with suppress(psycopg.Error):
            mark(self._administrative(), making, note=told)

    def _check_not_failed(self, making: str) -> None:
        told = note_on(self._administrative(), making)
        if told:
            raise TemplateUnavailable(told)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process of this run in at a time."""
        key = int.from_bytes(self.prefix.encode()[-9:], "big") % 2**63
        connection = self._administrative()
        connection.execute("select pg_advisory_lock(%s)", [key])
        try:
            yield
        finally:
            connection.execute("select pg_advisory_unlock(%s)", [key])

    def _own(self, name: str) -> str:
        if not name.startswith(self.prefix):
            raise ValueError(f"{name} is not a database of this run, and is not touched")
        return name

    def _administrative(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.url, autocommit=True, connect_timeout=CONNECT_SECONDS)
        return self._connection

    def _run(self, statement: sql.Composed) -> None:
        self._administrative().execute(statement)
