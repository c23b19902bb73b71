"""The tier `session`: one real transaction, held for a test and rolled back, on which commits are savepoints.

Every checkout of the engine gets a psycopg connection of its own, with its own idea of the transaction, its adapters
and its autocommit; all of them speak over one real connection. That is true to PostgreSQL as long as one of them at a
time has uncommitted writes, and where that ends the guard speaks.
"""

from __future__ import annotations

from contextlib import suppress
from select import select
from threading import Lock
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import IsolationLevel, generators, pq

from .guard import TierTooWeak
from .holder import COMMIT, DEFERRED, ROLLBACK, SAVEPOINT, HeldConnection

if TYPE_CHECKING:
    from collections.abc import Callable

_BEGIN = b"BEGIN; " + SAVEPOINT
_LOOKS = 5


def was_ended(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the server has ended an idle connection, without asking it."""
    # What the server sends unasked may be a notice or a notification. An end comes in two: its reason, and the end.
    for _ in range(_LOOKS):
        if connection.closed or not select([connection.pgconn.socket], [], [], 0)[0]:
            break
        with suppress(psycopg.OperationalError):
            connection.pgconn.consume_input()
    return connection.closed


class Held:
    """The one real connection of the tier, and the transaction on it."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        note: Callable[[str], None],
        record: Callable[[str], None],
    ) -> None:
        self._connect = connect
        self.note = note
        self.record = record
        """Told each statement, and each COMMIT and ROLLBACK, whatever was sent in its place."""
        self.lock = Lock()
        self.real: psycopg.Connection[Any] | None = None
        self.holders: list[HeldConnection] = []
        self.holding = False
        self.used = False
        """Whether anything was sent in this test's transaction."""
        self.wrote = False
        """Whether anything was written in it, committed or not."""
        self.changed_schema = False
        self.ahead = False
        """Whether the next test's transaction was sent for, and the answer is still to be read."""
        self.level = IsolationLevel.READ_COMMITTED
        self._check = b""
        self.constraints_changed = False

    @property
    def is_alive(self) -> bool:
        return self.real is not None and not self.real.closed

    def look(self) -> bool:
        """Tell whether the connection is there, whatever it was at its last use."""
        self.settle()
        return self.holding and self.real is not None and not self.real.closed and not was_ended(self.real)

    def open(self, connect: Callable[[], psycopg.Connection[Any]]) -> HeldConnection:
        """Return another connection over the real one, which is made with `connect` if there is none."""
        if not self.is_alive:
            if self.holding:
                self.note("The tier's one connection was lost during the test.")
                raise TierTooWeak("The tier's one connection was lost, and with it all that the test wrote.")
            self.holders.clear()
            self.real = connect()
        assert self.real is not None  # noqa: S101 (just made)
        holder = HeldConnection.over(self, self.real)
        self.holders.append(holder)
        return holder

    def begin(self) -> None:
        """Begin a test's transaction; what was sent until now, as the pool made connections, lasts."""
        assert self.real is not None  # noqa: S101 (opened before)
        self.real.rollback()
        level = self.real.execute("show transaction_isolation").fetchone()
        self.level = IsolationLevel[level[0].upper().replace(" ", "_")] if level else self.level
        self.learn_deferred()
        self.real.rollback()
        self.send(_BEGIN)
        self.holding, self.used, self.wrote = True, False, False

    def restart(self) -> None:
        """Roll a test's transaction back and begin the next, or nothing where nothing was sent.

        The answer is not waited for: the server works while pytest does, until `settle`.
        """
        if self.used and self.changed_schema:
            self.send(b"ROLLBACK")
            # What was prepared for a table's other shape would fail.
            self.real._prepared.clear()  # type: ignore[union-attr] # noqa: SLF001  # psycopg's
            self.changed_schema = False
            self.begin()
        elif self.used:
            assert self.real is not None  # noqa: S101 (it was used)
            with self.lock:
                self.real.pgconn.send_query(b"ROLLBACK; " + _BEGIN)
                self.real.pgconn.flush()
                self.ahead = True
        self.used, self.wrote = False, False
        for holder in self.holders:
            holder.forget()

    def settle(self) -> None:
        """See to it that the last test's transaction is gone, before anything that may look at what it held."""
        if self.ahead:
            with self.lock:
                self.settle_locked()

    def settle_locked(self) -> None:
        if self.ahead and self.real is not None:
            self.ahead = False
            try:
                results = self.real.wait(generators.execute(self.real.pgconn))
            except psycopg.Error:
                results = []
            # Where it is lost, by the test or by the server, the next test begins with a new one.
            self.holding = bool(results) and all(each.status == pq.ExecStatus.COMMAND_OK for each in results)

    def keep(self) -> str:
        """Commit truly what the test's transaction holds; return what of it was lost, if anything."""
        if not self.holding or not self.used or self.real is None:
            return ""
        failed = self.real.pgconn.transaction_status == pq.TransactionStatus.INERROR
        self.send((ROLLBACK + b"; " if failed else b"") + b"COMMIT; " + _BEGIN)
        return "without what a failed transaction of the test had written" if failed else ""

    def close(self) -> None:
        self.holding = self.ahead = False
        if self.real is not None:
            self.real.close()
        self.real = None
        self.holders.clear()

    def send(self, command: bytes) -> None:
        """Send statements by libpq alone, which is quicker than by psycopg."""
        assert self.real is not None  # noqa: S101 (opened before)
        with self.lock:
            self.settle_locked()
            result = self.real.pgconn.exec_(command)
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.OperationalError(self.real.pgconn.get_error_message())

    def learn_deferred(self) -> None:
        """Find out what a commit has to check."""
        assert self.real is not None  # noqa: S101 (opened before)
        row = self.real.execute(DEFERRED).fetchone()
        self.know_deferred(row[0] if row else None)

    def know_deferred(self, names: str | None) -> None:
        self.constraints_changed = False
        self._check = b""
        if names is not None:
            again = f"SET CONSTRAINTS {names} DEFERRED; " if names else ""
            self._check = f"SET CONSTRAINTS ALL IMMEDIATE; {again}".encode()

    def commit_commands(self) -> bytes:
        return self._check + COMMIT
