"""One of the connections over the held one: a psycopg connection with its own idea of the transaction.

It overrides what psycopg's own connection does to begin, commit and roll back, and adds no round trip to it. It is
one class, as psycopg's is: each of its methods takes the place of one there.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import ConnectionInfo, IsolationLevel, Transaction, generators, pq

from .guard import Kind, TierTooWeak, kind_of
from .recording import Telling, telling, text_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from .held import Held

IDLE, INTRANS, INERROR = (
    pq.TransactionStatus.IDLE,
    pq.TransactionStatus.INTRANS,
    pq.TransactionStatus.INERROR,
)

SAVEPOINT = b"SAVEPOINT held_for_test"
COMMIT = b"RELEASE held_for_test; " + SAVEPOINT
ROLLBACK = b"ROLLBACK TO held_for_test"
DEFERRED = """
    select coalesce(string_agg(distinct format('%I.%I', nspname, conname), ', ') filter (where condeferred), '')
      from pg_constraint join pg_namespace n on n.oid = connamespace where condeferrable having count(*) > 0
"""
"""Constraints that are deferred from the start of a transaction, which SET CONSTRAINTS ALL DEFERRED would not be alone;
no row where none can be deferred."""


class _Info(ConnectionInfo):
    """What a connection says of itself, with its own idea of the transaction."""

    def __init__(self, holder: HeldConnection) -> None:
        super().__init__(holder.pgconn)
        self._holder = holder

    @property
    def transaction_status(self) -> pq.TransactionStatus:
        if self._holder.held.holding and self.pgconn.status == pq.ConnStatus.OK:
            return self._holder.state
        return super().transaction_status


class HeldCursor(Telling):
    """A mixin for cursors that tell their connection what they are about to send, and when the answer is there."""

    pgresult: Any

    def execute(self, *args: Any, **kwargs: Any) -> HeldCursor:  # noqa: ANN401 (psycopg's)
        connection: HeldConnection = self._conn
        try:
            super().execute(*args, **kwargs)  # type: ignore[misc] # a cursor's class comes after the mixin
        finally:
            connection.after(self._pgresult_tag())
        return self

    def executemany(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (psycopg's)
        connection: HeldConnection = self._conn
        try:
            super().executemany(*args, **kwargs)  # type: ignore[misc] # a cursor's class comes after the mixin
        finally:
            connection.after(None)

    def _pgresult_tag(self) -> bytes | None:
        return self.pgresult.command_status if self.pgresult is not None else None


class HeldConnection(psycopg.Connection[Any]):
    """One of the connections over the real one: COMMIT is RELEASE and SAVEPOINT, ROLLBACK is ROLLBACK TO."""

    held: Held
    state = IDLE
    wrote = False
    depth = 0
    sending: str | None = None
    _gone = False

    @classmethod
    def over(cls, held: Held, real: psycopg.Connection[Any]) -> HeldConnection:
        holder = cls(real.pgconn)
        holder.held = held
        holder.lock = held.lock
        holder._prepared = real._prepared  # noqa: SLF001 (the names of what is prepared are the real connection's)
        holder._adapters = psycopg.adapt.AdaptersMap(real.adapters)
        holder._autocommit = real.autocommit
        holder.row_factory = real.row_factory
        holder.cursor_factory = telling(real.cursor_factory, HeldCursor)
        holder.server_cursor_factory = telling(real.server_cursor_factory)
        return holder

    def __del__(self, *_: object) -> None:
        """Say nothing, for the real connection is closed elsewhere."""

    def about_to_send(self, statement: Any) -> None:  # noqa: ANN401 (psycopg's Query)
        self.sending = text_of(statement, self)
        if self.held.holding:
            self.held.record(self.sending)

    def forget(self) -> None:
        self.state, self.wrote, self.depth = IDLE, False, 0

    @property
    def is_dirty(self) -> bool:
        """Whether another connection should not see what this one's transaction did, nor end it."""
        return self.wrote or self.depth > 0 or (self._num_transactions > 0 and self.state is not IDLE)

    @property
    def closed(self) -> bool:
        return self._gone or super().closed

    @property
    def info(self) -> ConnectionInfo:
        return _Info(self)

    def close(self) -> None:
        if not self.closed and self.held.holding and self.state is not IDLE:
            self.rollback()
        self._gone = True
        if self in self.held.holders:
            self.held.holders.remove(self)

    def _start_query(self) -> Generator[Any, Any, None]:
        held, statement, self.sending = self.held, self.sending, None
        held.settle_locked()
        if not held.holding:
            yield from super()._start_query()
            return
        kind = self._kind(statement)
        if kind is Kind.NOTHING:
            return
        for other in held.holders:
            if other is not self and other.is_dirty:
                self.refuse(
                    "A second connection was used while another had uncommitted writes, which it must not see."
                )
        if self.state is INERROR and self.pgconn.transaction_status != INERROR:
            # Another has rolled back since; to this one that makes no difference.
            raise psycopg.errors.InFailedSqlTransaction(
                "current transaction is aborted, commands ignored until end of transaction block"
            )
        if self.pgconn.transaction_status == INERROR and self.state is not INERROR:
            # Another's statement failed, and its transaction is lost anyway.
            yield from self._send(ROLLBACK)
        held.used, self.state = True, INTRANS if self.state is IDLE else self.state
        if kind is Kind.WRITE:
            self.wrote = held.wrote = True
        elif kind is not Kind.READ:
            self.depth = max(0, self.depth + (1 if kind is Kind.SAVEPOINT else -1))

    def _kind(self, statement: str | None) -> Kind:
        if statement is None:
            return Kind.READ
        try:
            kind = kind_of(statement)
        except TierTooWeak as weak:
            self.held.note(str(weak))
            raise
        first = statement.lstrip()[:8].lower()
        if first.startswith(("create", "alter", "drop", "comment", "grant", "revoke")):
            self.held.changed_schema = self.held.constraints_changed = True
        return kind

    def refuse(self, what: str) -> None:
        weak = TierTooWeak(what)
        self.held.note(str(weak))
        raise weak

    def after(self, tag: bytes | None) -> None:
        """Keep what a statement left behind: a failed transaction, none any more, or one that autocommit ends."""
        if not self.held.holding or self.closed or self.state is IDLE:
            return
        status = self.pgconn.transaction_status
        if status == IDLE:
            self.refuse("The test's transaction was ended by a statement.")
        if tag in (b"UPDATE 0", b"DELETE 0", b"INSERT 0 0", b"MERGE 0") and not self.depth:
            # Nothing that another could miss, unless something was written before.
            self.wrote = self.wrote and self._wrote_before
        self._wrote_before = self.wrote
        if status == INERROR:
            self.state = INERROR
        if self._autocommit:
            self.rollback() if status == INERROR else self.commit()

    _wrote_before = False

    @contextmanager
    def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002 (psycopg's)
    ) -> Iterator[Transaction]:
        outermost = self.held.holding and self.state is IDLE and not self._num_transactions
        transaction: Transaction | None = None
        try:
            with super().transaction(savepoint_name, force_rollback) as transaction:
                yield transaction
        finally:
            if outermost and transaction is not None:
                kept = transaction.status == Transaction.Status.COMMITTED
                self.commit() if kept else self.rollback()

    def commit(self) -> None:
        if not self.held.holding:
            super().commit()
        else:
            with self.lock:
                self.wait(self._commit_gen())

    def _commit_gen(self) -> Generator[Any, Any, None]:
        if not self.held.holding:
            yield from super()._commit_gen()
            return
        if self._num_transactions:
            raise psycopg.ProgrammingError("Explicit commit() forbidden within a Transaction context.")
        if self.state is IDLE:
            return
        self.held.record("COMMIT")
        if self.pgconn.transaction_status == INERROR:
            # As PostgreSQL answers COMMIT in a failed transaction.
            yield from self._rollback_gen()
            return
        try:
            if self.held.constraints_changed:
                yield from self._exec_command(b"SET CONSTRAINTS ALL IMMEDIATE")
                result = yield from self._exec_command(DEFERRED)
                names = result.get_value(0, 0) if result is not None and result.ntuples else None
                self.held.know_deferred(names.decode() if names is not None else None)
            yield from self._send(self.held.commit_commands())
        except psycopg.Error:
            yield from self._rollback_gen()
            raise
        self.forget()
        self._wrote_before = False

    def _rollback_gen(self) -> Generator[Any, Any, None]:
        if not self.held.holding:
            yield from super()._rollback_gen()
            return
        if self._num_transactions:
            raise psycopg.ProgrammingError("Explicit rollback() forbidden within a Transaction context.")
        if self.state is IDLE:
            return
        self.held.record("ROLLBACK")
        self.forget()
        self._wrote_before = False
        yield from self._send(ROLLBACK)
        if self.held.changed_schema:
            self._prepared.clear()
            yield from self._prepared.maintain_gen(self)

    def _send(self, commands: bytes) -> Generator[Any, Any, None]:
        # In a pipeline statements go one by one, and they may go so always; outside, one round trip is quicker.
        if self._pipeline:
            for command in commands.split(b"; "):
                yield from self._exec_command(command)
            return
        self._check_connection_ok()
        self.pgconn.send_query(commands)
        for result in (yield from generators.execute(self.pgconn)):
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result, encoding=self.info.encoding)

    def _check_intrans_gen(self, attribute: str) -> Generator[Any, Any, None]:
        if not self.held.holding:
            yield from super()._check_intrans_gen(attribute)
        elif self.state is not IDLE:
            raise psycopg.ProgrammingError(
                f"can't change {attribute!r} now: connection in transaction status {self.state.name}"
            )

    def set_isolation_level(self, value: IsolationLevel | None) -> None:
        if self.held.holding:
            if self._autocommit:
                self._autocommit = False
                self.refuse("AUTOCOMMIT was asked for, and every commit here is a savepoint.")
            if value not in (None, self.held.level):
                self.refuse(
                    f"The isolation level {value.name} was asked for, which a savepoint cannot change."
                )
        super().set_isolation_level(value)

    def set_read_only(self, value: bool | None) -> None:  # noqa: FBT001 (psycopg's)
        if value and self.held.holding:
            self.refuse("A read-only transaction was asked for, and a savepoint cannot be one.")
        super().set_read_only(value)

    def tpc_begin(self, xid: Any) -> None:  # noqa: ANN401 (psycopg's)
        if self.held.holding:
            self.refuse("A two-phase transaction was begun, and a savepoint cannot be prepared.")
        super().tpc_begin(xid)
