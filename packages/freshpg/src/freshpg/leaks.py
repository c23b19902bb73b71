"""What tests leave on the server, past their own databases: roles, tablespaces, replication slots, open transactions.

This is looked for on servers of our own alone: on one that was given, other people's come and go.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from .databases import CONNECT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOOK_SECONDS = 0.25
"""So long after a look the next is due where looking after every test would cost too much."""

Sightings = dict[str, dict[bool, list[str]]]
"""Things that tests of several processes may have left: the tests, by whether they ran as it was made."""

_CLOSING_SECONDS = 1.0
_PAUSE_SECONDS = 0.02
_LOOK_MILLISECONDS = 1000
_NAMED = 3

# The first 16384 of the identifiers are PostgreSQL's own.
_THINGS = """
    with made as (
        select 'role ' || quote_ident(rolname) as thing, xmin from pg_authid where oid >= 16384
        union all select 'tablespace ' || quote_ident(spcname), xmin from pg_tablespace where oid >= 16384
    )
    select thing, case current_setting('track_commit_timestamp')
                  when 'on' then extract(epoch from pg_xact_commit_timestamp(xmin))::float8 end
      from made
    union all select 'replication slot ' || quote_ident(slot_name), null from pg_replication_slots where not temporary
    union all select 'prepared transaction ' || quote_literal(gid) || ' in ' || quote_ident(database),
                     extract(epoch from prepared)::float8 from pg_prepared_xacts
"""

_OPEN = """
    select pid, state, query from pg_stat_activity
     where datname = any(%(databases)s) and state like 'idle in transaction%%' and backend_type = 'client backend'
    union all
    select distinct a.pid, 'holds an advisory lock of its session, ' || coalesce(a.state, ''), a.query
      from pg_locks l join pg_stat_activity a on a.pid = l.pid
     where l.locktype = 'advisory' and l.granted and a.datname = any(%(databases)s)
       and a.state not like 'idle in transaction%%'
     order by 1
"""


@dataclass(frozen=True)
class Leak:
    """A thing that was left on the server, and the tests one of which left it, of those of this process."""

    thing: str
    tests: tuple[str, ...]
    timed: bool = False
    """Whether they are known to have run when it was made; of other processes' tests, none then need be thought of."""

    def __str__(self) -> str:
        more = len(self.tests) - _NAMED
        names = " or ".join(self.tests[:_NAMED]) + (f" or {more} more" if more > 0 else "")
        return f"{self.thing} ({names})"


class Watch:
    """Looks, between tests, for what was not there before them; it fails nobody, and never raises."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection | None = None
        self._known: set[str] = set()
        self._tests: list[list[Any]] = []
        self._looked = time.monotonic()

    def forgive(self) -> None:
        """Take what is there now as nobody's leak: a fixture that outlives the test made it."""
        if (found := self._look()) is not None:
            self._known = set(found)

    def began(self, test: str, at: float) -> None:
        """Note that a test began, at a time in seconds of the epoch."""
        self._tests.append([test, at, None])

    def over(self, at: float) -> None:
        """Note that the test ended."""
        if self._tests:
            self._tests[-1][2] = at

    def nothing_came(self) -> None:
        """Take note that the server holds what it held at the last look: the tests since then left nothing."""
        self._tests.clear()

    def due(self) -> bool:
        """Tell whether the last look is long enough ago for one that costs every test something."""
        return time.monotonic() - self._looked >= LOOK_SECONDS

    def ended(self) -> list[Leak]:
        """Return what appeared since the last look."""
        found = self._look()
        if found is None:
            return []
        leaks = [self._leak(thing, at) for thing, at in found.items() if thing not in self._known]
        self._known = set(found)
        self._tests.clear()
        return leaks

    def there(self) -> set[str]:
        """Return what is there now; all that a server of ours has of its own is no part of it."""
        return set(self._look() or ())

    def left_open(self, databases: Sequence[str]) -> list[str]:
        """Return the sessions in these databases that hold on to something although their test has ended.

        One that was closed a moment ago is given the time to go.
        """
        deadline = time.monotonic() + _CLOSING_SECONDS
        while rows := self._ask(_OPEN, {"databases": list(databases)}):
            if time.monotonic() > deadline:
                return [
                    f"pid {pid} ({state}), last statement: {' '.join(query.split())}"
                    for pid, state, query in rows
                ]
            time.sleep(_PAUSE_SECONDS)
        return []

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _leak(self, thing: str, at: float | None) -> Leak:
        """Tell of the test that ran when a thing was made, or of all since the last look where that is not known."""
        names = tuple(dict.fromkeys(name for name, _, _ in self._tests))
        before = [(name, ended) for name, began, ended in self._tests if at is not None and began <= at]
        if at is None or not before:
            return Leak(thing, names)
        name, ended = before[-1]
        return Leak(thing, (name,), timed=ended is None or at <= ended)

    def _look(self) -> dict[str, float | None] | None:
        rows = self._ask(_THINGS, {})
        self._looked = time.monotonic()
        return None if rows is None else dict(rows)

    def _ask(self, question: str, parameters: dict[str, object]) -> list[tuple[Any, ...]] | None:
        # A test may have ended every connection, and this one too; a server that died is told elsewhere.
        for _ in range(2):
            with suppress(psycopg.OperationalError):
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(
                        self._url,
                        autocommit=True,
                        connect_timeout=CONNECT_SECONDS,
                        application_name="leaks of tests",
                        # A test may have left a lock on what is looked at.
                        options=f"-c statement_timeout={_LOOK_MILLISECONDS}",
                    )
                return self._connection.execute(question, parameters, prepare=True).fetchall()
        return None


def sentence(leaks: Iterable[Leak], sessions: Iterable[str]) -> str:
    """Say what a test left, and what to do about it."""
    lines = [f"Left on the server: {leak.thing}." for leak in leaks]
    lines += [f"Left open: {session}." for session in sessions]
    return "\n".join([*lines, "Drop, end or close what a test makes, in the test or in its fixtures."])


def still_there(url: str, sightings: Sightings) -> list[Leak]:
    """Return those of the sightings that nobody has removed since."""
    watch = Watch(url)
    there = watch.there()
    watch.close()
    return [
        Leak(thing, tuple(dict.fromkeys(tests[True] or tests[False])))
        for thing, tests in sightings.items()
        if thing in there
    ]


def fail_afterwards(config: pytest.Config, leak: Leak) -> None:
    """Fail a test that has ended already, as if its tear-down had."""
    test = leak.tests[0]
    report = pytest.TestReport(
        nodeid=test,
        location=(test.partition("::")[0], None, test.rpartition("::")[2]),
        keywords={},
        outcome="failed",
        longrepr=sentence([leak], []),
        when="teardown",
    )
    config.hook.pytest_runtest_logreport(report=report)
