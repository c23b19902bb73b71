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
from .seeds import INSIDE_SETTING, SEEDED_TEMPLATE, WANTED_SETTING
from .server import database_url
from .template_seed import make_template_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

CONNECT_SECONDS = 10
LOCK_SECONDS = 5.0

_EMPTY = "template0"

_TABLES = """
    select n.nspname, c.relname
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p')
       and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
       and not exists (select from pg_depend d
                        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
     order by 1, 2
"""

_HOLDERS = """
    select distinct a.pid, a.state, a.query
      from pg_locks l join pg_stat_activity a on a.pid = l.pid
     where l.locktype = 'relation' and l.granted and l.pid <> pg_backend_pid()
       and l.database = (select oid from pg_database where datname = current_database())
       and l.relation = any(%s::regclass[])
     order by a.pid
"""


class TablesStayLocked(Exception):  # noqa: N818 (it says what is so)
    """A test left a transaction open that holds its tables, and so they could not be emptied in time."""


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

    def drop(self, names: Iterable[str]) -> None:
        """Drop databases, and end the connections that are still open to them."""
        for name in names:
            self._run(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(self._own(name)))
            )

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

    def template(self, prepare: Callable[[str], None]) -> str:
        """Return the name of the template, having `prepare` bring a new database to its schema if there is none yet.

        Processes that ask at the same time wait for the first. The template only gets its name when it is whole,
        and then takes no connections, so that a copy is never held up. What `prepare` raises comes through to the
        first that asks; the others, of whichever process, are told by TemplateUnavailable. A server that grew from a
        seed has the template already; one for which there was no seed yet has one made now, by `prepare` on a server
        of its own, after those that wait were served.
        """
        template, making = f"{self.prefix}template", f"{self.prefix}making"
        wanted = None
        with self._alone():
            if template not in self.names() and not self._take_seeded(template):
                wanted = self._setting(WANTED_SETTING)
                self._check_not_failed(making)
                self.drop([making])
                url = self.create(making)
                try:
                    prepare(url)
                except Exception as error:
                    said = " ".join(str(error).split()).replace(url, "its URL")
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
            make_template_seed(wanted, prepare)
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


class Reset:
    """Empties every table of one database, in one round trip, on a connection of its own."""

    def __init__(self, url: str, keep: Iterable[str], *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._url = url
        self._milliseconds = int(lock_seconds * 1000)
        self._connection = self._connect()
        kept = set(keep)
        found = self._connection.execute(_TABLES).fetchall()
        tables = [table for table in found if table[1] not in kept and ".".join(table) not in kept]
        self._tables = [sql.Identifier(*table).as_string(self._connection) for table in tables]

    def __call__(self) -> None:
        """Empty the tables.

        Raises TablesStayLocked, which names the connections that held them, once those were ended and the tables
        emptied: the test that left them open fails, and not the ones after it.
        """
        if not self._tables:
            return
        statement = sql.SQL("truncate {} restart identity cascade").format(
            sql.SQL(", ").join(map(sql.SQL, self._tables))
        )
        try:
            self._execute(statement)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            holders = self._connection.execute(_HOLDERS, [self._tables]).fetchall()
            self._connection.execute(
                "select pg_terminate_backend(pid, 2000) from unnest(%s::int[]) pid",
                [[row[0] for row in holders]],
            )
            self._execute(statement)
            told = "\n".join(
                f"  pid {pid} ({state}), last statement: {query}" for pid, state, query in holders
            )
            raise TablesStayLocked(
                f"The tables were still locked {self._milliseconds / 1000:g} s after the test, by:\n{told}\n"
                "These connections were ended. Commit, roll back or close what the test opens."
            ) from None

    def close(self) -> None:
        self._connection.close()

    def _execute(self, statement: sql.Composed) -> None:
        try:
            self._connection.execute(statement)
        except psycopg.OperationalError:
            # A test that ends every connection to its database ends this one too.
            if not self._connection.broken:
                raise
            self._connection = self._connect()
            self._connection.execute(statement)

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name="reset between tests",
            options=f"-c lock_timeout={self._milliseconds}",
        )
