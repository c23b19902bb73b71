"""One SQLAlchemy engine for all tiers, so that compiled statements are kept: its pool and its database change.

Nothing else here needs SQLAlchemy, and this module is imported where the first engine is asked for.
"""

from __future__ import annotations

import re
from collections import deque
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import psycopg
from sqlalchemy import event
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionRecord

from .guard import TierTooWeak
from .held import Held, was_ended
from .holder import HeldConnection
from .listeners import Listeners
from .recording import RecordedConnection
from .server import sqlalchemy_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from .ledger import Use
    from .shared import Shared
    from .standing import Now

PING = ";"
"""What SQLAlchemy's dialect sends before it hands out a connection from a pool that pings."""
_STICKS = re.compile(
    r"(?:^|;|\*/|--[^\n]*\n)\s*(set\s+(?!local|transaction|constraints)|listen|prepare|load"
    r"|create\s+(or\s+replace\s+)?((local|global)\s+)?temp)|\bset_config\s*\(|\bpg_temp\b|into\s+temp|\bwith\s+hold\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def _sticks(statement: str) -> bool:
    """Tell whether a statement leaves something with its connection, which would be the next test's to find."""
    return _STICKS.search(statement) is not None


class HeldPool(Pool):
    """Gives each checkout a connection over the held one; those returned are kept for the next checkout."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 (Pool's)
        super().__init__(*arguments, **options)
        self._free: deque[Any] = deque()

    def _do_get(self) -> Any:  # noqa: ANN401 (Pool's)
        while self._free:
            record = self._free.pop()
            if record.dbapi_connection is not None and not record.dbapi_connection.closed:
                return record
        return _ConnectionRecord(self)

    def _do_return_conn(self, record: Any) -> None:  # noqa: ANN401 (Pool's)
        self._free.append(record)

    def dispose(self) -> None:
        while self._free:
            self._free.pop().close()

    def recreate(self) -> HeldPool:
        return self

    def status(self) -> str:
        return "connections over one that is held for the test"


class OneEngine:
    """The engine of this process's tests, and what its pool and URL are in each tier."""

    def __init__(self, connect: Callable[..., Engine], shared: Shared, now: Now) -> None:
        self.shared = shared
        self.now = now
        self.engine = connect(sqlalchemy_url(shared.url))
        self._shared_pool = self.engine.pool
        self._use: Use | None = None
        self.sticks = False
        """Whether a statement since the last look left something with its connection."""
        self.held = Held(self._plain, self._note, self._record)
        self._held_pool: HeldPool | None = None
        self._arguments: tuple[Any, dict[str, Any]] | None = None
        self._opened: WeakSet[psycopg.Connection[Any]] = WeakSet()
        event.listen(self.engine, "do_connect", self._connect)
        event.listen(self.engine, "connect", self._connected)
        self._listeners = Listeners(self.engine)

    def _note(self, what: str) -> None:
        if self._use is not None and what not in self._use.notes:
            self._use.notes.append(what)

    def _record(self, statement: str) -> None:
        if statement == PING:
            return
        if self._use is not None:
            self._use.statements.append(statement)
            self._use.commits += statement == "COMMIT"
        self.sticks = self.sticks or _sticks(statement)

    def _plain(self) -> psycopg.Connection[Any]:
        assert self._arguments is not None  # noqa: S101 (set by _connect)
        arguments, options = self._arguments
        return psycopg.Connection.connect(*arguments, **options)

    def _connect(self, _dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:  # noqa: ANN401
        options["dbname"] = self.engine.url.database
        if self._held_pool is None or self.engine.pool is not self._held_pool:
            return RecordedConnection.connect(*arguments, **options)
        self._arguments = (tuple(arguments), dict(options))
        return self.held.open(self._plain)

    def _connected(self, connection: psycopg.Connection[Any], _record: Any) -> None:  # noqa: ANN401 (SQLAlchemy's)
        if not isinstance(connection, HeldConnection):
            self._opened.add(connection)
        # What SQLAlchemy asks to know the server, at the first of all, is no statement of a test.
        if isinstance(connection, RecordedConnection):
            connection.record_by(self._record)

    def _ended(self) -> None:
        self._use = None
        self._listeners.restore()

    def point_to(self, url: str) -> None:
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        self.engine.url = self.engine.url.set(database=str(name))

    @contextmanager
    def session(self, use: Use) -> Iterator[Engine]:
        """Have the engine speak in a transaction that is rolled back at the end of the block."""
        self._use = use
        if self._held_pool is None:
            pool = self._shared_pool
            self._held_pool = HeldPool(
                pool._creator,  # noqa: SLF001 (what `recreate` of SQLAlchemy's own pools hands on)
                pre_ping=pool._pre_ping,  # noqa: SLF001  # SQLAlchemy's
                dialect=pool._dialect,  # noqa: SLF001  # SQLAlchemy's
                _dispatch=pool.dispatch,
            )
        self.engine.pool = self._held_pool
        try:
            if not self.held.look():
                self._take_hold()
            yield self.engine
        finally:
            self._ended()
            self.engine.pool = self._shared_pool
            try:
                self.held.restart()
            except psycopg.Error:
                # Lost, by the test or by the server; the next test begins with a new one.
                self.release()

    def _take_hold(self) -> None:
        self.release()
        # The first checkout initialises the dialect and runs what listens to `connect`, all of which is to last.
        with self.engine.connect() as connection:
            driver = connection.connection.driver_connection
            if not isinstance(driver, HeldConnection):
                raise TypeError(
                    "postgres_connect has to make an engine for psycopg that opens its own connections"
                )
        if driver.autocommit:
            raise TierTooWeak("The engine asks for AUTOCOMMIT, and every commit here is a savepoint.")
        self.held.begin()

    def release(self) -> None:
        """End the held transaction and its connection."""
        self.held.close()
        if self._held_pool is not None:
            self._held_pool.dispose()

    @contextmanager
    def committing(self, use: Use) -> Iterator[Engine]:
        """Have the engine speak to the shared database through its own pool."""
        if any(was_ended(connection) for connection in self._opened if not connection.closed):
            # By a test, past the engine; a pool that does not ping would hand them out.
            self.let_go()
        self._use, self.sticks = use, False
        try:
            yield self.engine
        finally:
            self._ended()
            # The test may have disposed of the engine, which gives it another pool.
            self._shared_pool = self.engine.pool
            if self.sticks:
                self.let_go()

    def let_go(self) -> None:
        """Close the connections to the shared database that wait in the pool; those in use are closed on return."""
        self._shared_pool.dispose()
        self._shared_pool = self._shared_pool.recreate()
        self.engine.pool = self._shared_pool

    @contextmanager
    def elsewhere(self, use: Use) -> Iterator[Engine]:
        """Have the engine speak to another database, all connections to which are closed at the end of the block."""
        self._use = use
        before = self.engine.url
        self.point_to(use.url)
        self.engine.pool = self._shared_pool.recreate()
        try:
            yield self.engine
        finally:
            self._ended()
            self.engine.pool.dispose()
            self.engine.pool, self.engine.url = self._shared_pool, before

    def close(self) -> None:
        self.release()
        self.engine.dispose()
