"""The session's zone, held at UTC, and the driver's own conversions with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Dialect, Engine, event, func, select
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from backend.utc import dumpers, loaders

# ISO is the one DateStyle whose output psycopg can read whatever the order of day and month; MDY is the
# default order.
_PIN = "SET TIME ZONE 'UTC'; SET datestyle = 'ISO, MDY'"
_PINNED = {"TimeZone": "UTC", "DateStyle": "ISO"}
# In the record of each connection that was prepared here.
_PREPARED = "backend.utc"

_pinned_dialects: WeakSet[Dialect] = WeakSet()


def pin_utc(engine: Engine) -> Engine:
    """Hold every session of this engine at UTC and ISO DateStyle; returns the same engine.

    The zone that a session starts with comes from postgresql.conf, the database, the role, or `PGTZ` (which
    beats `options=-c timezone=UTC`); a SET after connecting beats them all. A SET that somebody committed
    would leak to the pool's next user, so each checkout looks at what the server last reported, which costs
    no round trip, and repairs it. What is SET within a transaction does not matter to values: the driver
    loads timestamptz as UTC and sends instants alone (see `loaders` and `dumpers`).
    """
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "checkout", _on_checkout)
    _pinned_dialects.add(engine.dialect)
    return engine


def stray_settings(connection: Connection) -> dict[str, str]:
    """Return those of TimeZone and DateStyle that are not pinned in this session, as the server has them."""
    names = ("TimeZone", "DateStyle")
    values = connection.execute(select(*(func.current_setting(name) for name in names))).one()
    return {
        name: value for name, value in zip(names, values, strict=True) if not value.startswith(_PINNED[name])
    }


def is_pinned(dialect: Dialect) -> bool:
    """Tell whether this is the dialect of an engine that was pinned, whose driver therefore yields UTC."""
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
        # The pool made it before the engine was pinned.
        _on_connect(connection, entry)
    if _is_pinned(connection):
        return
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        # Somebody's transaction is still open on it (a pool that does not reset): no SET made here would be
        # sure to last.
        raise DisconnectionError("the session's time zone was changed inside an open transaction")
    _pin(connection)


def _pin(connection: psycopg.Connection[Any]) -> None:
    with _outside_transaction(connection):
        connection.execute(_PIN)


@contextmanager
def _outside_transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    # In a transaction the SET would be undone by the first rollback, which is what a pool does at every
    # return.
    before = connection.autocommit
    connection.autocommit = True
    try:
        yield
    finally:
        if not connection.closed:
            connection.autocommit = before


def _is_pinned(connection: psycopg.Connection[Any]) -> bool:
    status = connection.pgconn.parameter_status
    return status(b"TimeZone") == b"UTC" and (status(b"DateStyle") or b"").startswith(b"ISO")
