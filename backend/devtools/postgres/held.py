"""The tier `session`: one real transaction, held for a test and rolled back, on which commits are savepoints.

Every checkout of the engine gets a psycopg connection of its own, with its own idea of the transaction, its adapters and
its autocommit; all of them speak over one real connection. That is true to PostgreSQL as long as one of them at a time
has uncommitted writes, and where that ends the guard speaks.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from select import select
from threading import Lock
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import ConnectionInfo, IsolationLevel, Transaction, generators, pq

from .guard import Kind, TierTooWeak, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

IDLE, INTRANS, INERROR = (
    pq.TransactionStatus.IDLE,
    pq.TransactionStatus.INTRANS,
    pq.TransactionStatus.INERROR,
)

_BEGIN = b"BEGIN; SAVEPOINT held_for_test"
_COMMIT = b"RELEASE held_for_test; SAVEPOINT held_for_test"
_ROLLBACK = b"ROLLBACK TO held_for_test"

# Constraints that are deferred from the start of a transaction, which SET CONSTRAINTS ALL DEFERRED would not be alone:
# nothing where none can be deferred at all.
_DEFERRED = """
    select coalesce(string_agg(distinct format('%I.%I', nspname, conname), ', ') filter (where condeferred), '')
      from pg_constraint join pg_namespace n on n.oid = connamespace where condeferrable having count(*) > 0
"""


class Held:
    """The one real connection of the tier, and the transaction on it."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], note: Callable[[str], None]) -> None:
        self._connect = connect
        self.note = note
        self.lock = Lock()
        self.real: psycopg.Connection[Any] | None = None
        self.holders: list[HeldConnection] = []
        self.holding = False
        self.used = False
        """Whether anything was sent in this test's transaction."""
        self.wrote = False
        """Whether anything was written in it, committed or not."""
        self.changed_schema = False
        self.level = IsolationLevel.READ_COMMITTED
        self._check = b""
        self.constraints_changed = False

    @property
    def is_alive(self) -> bool:
        return self.real is not None and not self.real.closed

    def look(self) -> bool:
        """Tell whether the connection is there, having looked at what the server sent unasked, its end included."""
        if self.real is None or self.real.closed:
            return False
        if select([self.real.pgconn.socket], [], [], 0)[0]:
            with suppress(psycopg.OperationalError):
                self.real.pgconn.consume_input()
        return not self.real.closed

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
        """Roll a test's transaction back and begin the next, in one round trip, or none where nothing was sent."""
        if self.used:
            self.send(b"ROLLBACK; " + _BEGIN)
            if self.changed_schema:
                # What was prepared for a table's other shape would fail.
                self.real._prepared.clear()  # type: ignore[union-attr] # noqa: SLF001
                self.changed_schema = False
                self.send(b"ROLLBACK")
                self.begin()
        self.used, self.wrote = False, False
        for holder in self.holders:
            holder.forget()

    def keep(self) -> str:
        """Commit truly what the test's transaction holds; return what of it was lost, if anything."""
        if not self.holding or not self.used or self.real is None:
            return ""
        failed = self.real.pgconn.transaction_status == INERROR
        self.send((_ROLLBACK + b"; " if failed else b"") + b"COMMIT; " + _BEGIN)
        return "without what a failed transaction of the test had written" if failed else ""

    def close(self) -> None:
        self.holding = False
        if self.real is not None:
            self.real.close()
        self.real = None
        self.holders.clear()

    def send(self, command: bytes) -> None:
        """Send statements by libpq alone, which is quicker than by psycopg."""
        assert self.real is not None  # noqa: S101 (opened before)
        with self.lock:
            result = self.real.pgconn.exec_(command)
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.OperationalError(self.real.pgconn.get_error_message())

    def learn_deferred(self) -> None:
        """Find out what a commit has to check."""
        assert self.real is not None  # noqa: S101 (opened before)
        row = self.real.execute(_DEFERRED).fetchone()
        self.know_deferred(row[0] if row else None)

    def know_deferred(self, names: str | None) -> None:
        self.constraints_changed = False
        self._check = b""
        if names is not None:
            again = f"SET CONSTRAINTS {names} DEFERRED; " if names else ""
            self._check = f"SET CONSTRAINTS ALL IMMEDIATE; {again}".encode()

    def commit_commands(self) -> bytes:
        return self._check + _COMMIT


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


class HeldCursor(psycopg.Cursor[Any]):
    """A cursor that tells its connection what it is about to send."""

    _statement: Any = None

    def _start_query(self, query: Any = None) -> Generator[Any, Any, None]:  # noqa: ANN401 (psycopg's)
        connection: HeldConnection = self._conn  # type: ignore[assignment]
        statement = self._statement if query is None else query
        connection.sending = statement
        yield from super()._start_query(query)

    def _start_copy_gen(self, statement: Any, params: Any = None) -> Generator[Any, Any, None]:  # noqa: ANN401
        self._statement = statement
        yield from super()._start_copy_gen(statement, params)

    def execute(self, *args: Any, **kwargs: Any) -> HeldCursor:  # noqa: ANN401 (psycopg's)
        connection: HeldConnection = self._conn  # type: ignore[assignment]
        try:
            super().execute(*args, **kwargs)
        finally:
            connection.after(self._pgresult_tag())
        return self

    def executemany(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (psycopg's)
        connection: HeldConnection = self._conn  # type: ignore[assignment]
        try:
            super().executemany(*args, **kwargs)
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
    sending: Any = None
    _gone = False

    @classmethod
    def over(cls, held: Held, real: psycopg.Connection[Any]) -> HeldConnection:
        holder = cls(real.pgconn)
        holder.held = held
        holder.lock = held.lock
        holder._prepared = real._prepared  # noqa: SLF001 (the names of what is prepared are the real connection's)
        holder._adapters = psycopg.adapt.AdaptersMap(real.adapters)  # noqa: SLF001
        holder._autocommit = real.autocommit  # noqa: SLF001
        holder.row_factory = real.row_factory
        holder.cursor_factory = HeldCursor
        return holder

    def __del__(self) -> None:
        """Say nothing, for the real connection is closed elsewhere."""

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
        if not held.holding:
            yield from super()._start_query()
            return
        kind = self._kind(statement)
        if kind is Kind.NOTHING:
            return
        for other in held.holders:
            if other is not self and other.is_dirty:
                self._refuse(
                    "A second connection was used while another had uncommitted writes, which it must not see."
                )
        if self.pgconn.transaction_status == INERROR and self.state is not INERROR:
            # Another's statement failed, and its transaction is lost anyway.
            yield from self._send(_ROLLBACK)
        held.used, self.state = True, INTRANS if self.state is IDLE else self.state
        if kind is Kind.WRITE:
            self.wrote = held.wrote = True
        elif kind is not Kind.READ:
            self.depth = max(0, self.depth + (1 if kind is Kind.SAVEPOINT else -1))

    def _kind(self, statement: Any) -> Kind:  # noqa: ANN401 (psycopg's)
        if statement is None:
            return Kind.READ
        if isinstance(statement, bytes):
            statement = statement.decode(errors="replace")
        elif not isinstance(statement, str):
            statement = statement.as_string(self) if hasattr(statement, "as_string") else str(statement)
        try:
            kind = kind_of(statement)
        except TierTooWeak as weak:
            self.held.note(str(weak))
            raise
        first = statement.lstrip()[:8].lower()
        if first.startswith(("create", "alter", "drop", "comment", "grant", "revoke")):
            self.held.changed_schema = self.held.constraints_changed = True
        return kind

    def _refuse(self, what: str) -> None:
        weak = TierTooWeak(what)
        self.held.note(str(weak))
        raise weak

    def after(self, tag: bytes | None) -> None:
        """Keep what a statement left behind: a failed transaction, none any more, or one that autocommit ends."""
        if not self.held.holding or self.closed or self.state is IDLE:
            return
        status = self.pgconn.transaction_status
        if status == IDLE:
            self._refuse("The test's transaction was ended by a statement.")
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
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:  # noqa: FBT001, FBT002 (psycopg's)
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
        if self.pgconn.transaction_status == INERROR:
            # As PostgreSQL answers COMMIT in a failed transaction.
            yield from self._rollback_gen()
            return
        try:
            if self.held.constraints_changed:
                yield from self._exec_command(b"SET CONSTRAINTS ALL IMMEDIATE")
                result = yield from self._exec_command(_DEFERRED)
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
        self.forget()
        self._wrote_before = False
        yield from self._send(_ROLLBACK)
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
            raise psycopg.ProgrammingError(f"can't change {attribute!r} now: connection in transaction status {self.state.name}")

    def set_isolation_level(self, value: IsolationLevel | None) -> None:
        if self.held.holding:
            if self._autocommit:
                self._autocommit = False
                self._refuse("AUTOCOMMIT was asked for, and every commit here is a savepoint.")
            if value not in (None, self.held.level):
                self._refuse(f"The isolation level {value.name} was asked for, which a savepoint cannot change.")  # type: ignore[union-attr]
        super().set_isolation_level(value)

    def set_read_only(self, value: bool | None) -> None:  # noqa: FBT001 (psycopg's)
        if value and self.held.holding:
            self._refuse("A read-only transaction was asked for, and a savepoint cannot be one.")
        super().set_read_only(value)

    def tpc_begin(self, xid: Any) -> None:  # noqa: ANN401 (psycopg's)
        if self.held.holding:
            self._refuse("A two-phase transaction was begun, and a savepoint cannot be prepared.")
        super().tpc_begin(xid)
