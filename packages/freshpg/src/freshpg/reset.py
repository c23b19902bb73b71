"""Takes a worker's database back to its template after a test: one round trip that costs what was touched.

A PL/pgSQL function in `pg_temp` of our own connection does the work. It looks for transactions that were left open and,
if any transaction wrote since the last reset, for changes of the schema and of the template's rows; then it empties
the tables that have rows and puts back the sequences that moved.
"""

import time
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from .libpq import NO_TIMEOUTS, connect
from .reset_functions import OTHERS, compose

LOCK_SECONDS = 1
GRACE_SECONDS = 0.25
"""How long an open transaction may take to end by itself: a connection that was just closed takes a moment to go."""
_ATTEMPTS = 5


@dataclass
class Outcome:
    """What a reset found."""

    must_be_replaced: bool = False
    """Only a fresh copy of the template will do: the schema changed, or rows that the template has."""
    left_open: list[str] = field(default_factory=list)
    """The transactions that the test had left open, in words; they were ended."""
    databases: frozenset[str] = frozenset()
    """The databases of the server, but for PostgreSQL's own; none if nothing was written."""


class Reset:
    """Resets one database, which has to be as the template is when this is made."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url)
        execute = self._connection.execute
        execute(NO_TIMEOUTS)
        execute(sql.SQL("set lock_timeout to '{}s'").format(LOCK_SECONDS))
        execute("set plan_cache_mode to force_generic_plan")
        # What is enabled ALWAYS or for a REPLICA might write during the deletes; TRUNCATE fires none of that.
        may_delete = not self._one(
            "select exists (select from pg_trigger where tgenabled in ('A', 'R')) "
            "or exists (select from pg_rewrite where ev_enabled in ('A', 'R'))"
        )[0]
        try:
            execute("set session_replication_role to replica")
        except psycopg.errors.InsufficientPrivilege:
            may_delete = False
        self._seen = 0
        self._database: int = self._one("select oid from pg_database where datname = current_database()")[0]
        execute(compose(self._connection, self._database, may_delete=may_delete))
        self._known = self._one("select pg_snapshot_xmax(pg_current_snapshot())::xid::text")[0]
        self._rows = self._one("select pg_temp.freshpg_rows(%s::text::xid)", self._known)[0]
        self._remember_catalogs()

    def __call__(self) -> Outcome:
        """Take the database back, ending what was left open on it. Raises psycopg.Error if the server is gone."""
        outcome = Outcome()
        statement = "select * from pg_temp.freshpg_reset(%s::text::xid, %s, %s, %s)"
        try:
            for _ in range(_ATTEMPTS):
                try:
                    row = self._one(
                        statement, self._known, self._catalogs, self._rows, self._seen, prepare=True
                    )
                except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                    outcome.left_open += self._end_open(with_active=True)
                    continue
                self._seen, result, to_vacuum, databases = row
                if result != "open":
                    self._finish(result, to_vacuum)
                    outcome.databases = frozenset(databases or ())
                    outcome.must_be_replaced = result == "changed"
                    return outcome
                outcome.left_open += self._end_open()
        except psycopg.OperationalError:
            # A test ended all connections to its database, ours too; if the server is gone, the copy will say so.
            if not self._connection.closed:
                raise
        outcome.must_be_replaced = True
        return outcome

    def close(self) -> None:
        self._connection.close()

    def _one(self, statement: LiteralString | sql.Composed, *values: object, prepare: bool = False) -> Any:  # noqa: ANN401 (a row of any types)
        return self._connection.execute(statement, values, prepare=prepare).fetchone()

    def _finish(self, result: str, to_vacuum: list[str] | None) -> None:
        if result == "truncated":
            # That writes to the catalog, and is no change of the schema.
            self._remember_catalogs()
        if to_vacuum:
            # A table that another connection uses is left for the next time.
            names = sql.SQL(", ").join(map(sql.SQL, to_vacuum))
            self._connection.execute(sql.SQL("vacuum (skip_locked) {}").format(names))

    def _remember_catalogs(self) -> None:
        self._catalogs = self._one("select pg_temp.freshpg_catalogs(%s::text::xid)", self._known)[0]

    def _end_open(self, *, with_active: bool = False) -> list[str]:
        """Wait a moment for open transactions to end, then end them; return which they were."""
        or_if = sql.SQL("state = 'active'" if with_active else "false")
        others = sql.SQL(OTHERS).format(database=self._database, or_if=or_if)
        query = sql.SQL("select pid, state, left(query, 200) {}").format(others)
        deadline = time.monotonic() + (0 if with_active else GRACE_SECONDS)
        while (rows := self._connection.execute(query).fetchall()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid, _, _ in rows:
            self._connection.execute("select pg_terminate_backend(%s, 5000)", [pid])
        left = [f"pid {pid} ({state}), last statement: {' '.join(text.split())}" for pid, state, text in rows]
        prepared = "select gid from pg_prepared_xacts where database = current_database()"
        for (gid,) in self._connection.execute(prepared).fetchall():
            self._connection.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
            left.append(f"prepared transaction {gid}")
        return left
