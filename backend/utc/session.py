"""`pin_utc`: sessions that stay in UTC, with the driver's conversions."""

from typing import Any
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Dialect, Engine, event, func, select
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from backend.utc import dumpers, loaders

# ISO is the only DateStyle that psycopg can read; MDY is PostgreSQL's default order.
_PIN = "SET TIME ZONE 'UTC'; SET datestyle = 'ISO, MDY'"
_PINNED = {"TimeZone": "UTC", "DateStyle": "ISO"}
# This key marks a connection in the pool's record as prepared.
_PREPARED = "backend.utc"

_pinned_dialects: WeakSet[Dialect] = WeakSet()


def pin_utc(engine: Engine) -> Engine:
    """Keep every session of this engine in UTC and in ISO DateStyle; return the same engine.

    The initial zone of a session comes from postgresql.conf, the database, the role, or `PGTZ` (which overrides
    `options=-c timezone=UTC`); a SET after connecting overrides them all. A committed SET would leak to the pool's next
    user, so each checkout compares the zone that the server last reported, without a round trip, and repairs it. A SET
    inside a transaction does not change values: see `loaders` and `dumpers`.
    """
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "checkout", _on_checkout)
    _pinned_dialects.add(engine.dialect)
    return engine


def stray_settings(connection: Connection) -> dict[str, str]:
    """Return TimeZone and DateStyle of this session, if they differ from what `pin_utc` sets."""
    names = ("TimeZone", "DateStyle")
    values = connection.execute(select(*(func.current_setting(name) for name in names))).one()
    return {
        name: value for name, value in zip(names, values, strict=True) if not value.startswith(_PINNED[name])
    }


def is_pinned(dialect: Dialect) -> bool:
    """Return whether this dialect belongs to a pinned engine, whose driver returns UTC."""
    return dialect in _pinned_dialects


def _on_connect(connection: psycopg.Connection[Any], entry: ConnectionPoolEntry) -> None:
    loaders.register(connection.adapters)
    dumpers.register(connection.adapters)
    entry.info[_PREPARED] = True
    _pin(connection)


def _on_checkout(
    connection: psycopg.Connection[Any], entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    if _PREPARED not in entry.info:
        # The pool opened this connection before the engine was pinned.
        _on_connect(connection, entry)
    if _session_is_utc(connection):
        return
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        # A transaction is still open (this pool does not roll back), and its rollback would undo our SET.
        raise DisconnectionError("the session's time zone was changed inside an open transaction")
    _pin(connection)


def _pin(connection: psycopg.Connection[Any]) -> None:
    # Inside a transaction, the next rollback would undo the SET, and a pool rolls back whenever a connection returns.
    before = connection.autocommit
    connection.autocommit = True
    connection.execute(_PIN)
    connection.autocommit = before


def _session_is_utc(connection: psycopg.Connection[Any]) -> bool:
    status = connection.pgconn.parameter_status
    return status(b"TimeZone") == b"UTC" and (status(b"DateStyle") or b"").startswith(b"ISO")
