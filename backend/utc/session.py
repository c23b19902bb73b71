"""The session's zone, held at UTC."""

from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

# ISO is the one DateStyle whose output psycopg can read whatever the order of day and month; MDY is the
# default order.
_PIN = "SET TIME ZONE 'UTC'; SET datestyle = 'ISO, MDY'"


def pin_utc(engine: Engine) -> Engine:
    """Hold every session of this engine at UTC and ISO DateStyle; returns the same engine.

    The zone that a session starts with comes from postgresql.conf, the database, the role, or `PGTZ` (which
    beats `options=-c timezone=UTC`); a SET after connecting beats them all. A SET that somebody committed
    would leak to the pool's next user, so each checkout looks at what the server last reported, which costs
    no round trip, and repairs it.
    """
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "checkout", _on_checkout)
    return engine


def _on_connect(connection: psycopg.Connection[Any], _entry: ConnectionPoolEntry) -> None:
    _pin(connection)


def _on_checkout(
    connection: psycopg.Connection[Any], _entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    if _is_pinned(connection):
        return
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        # Somebody's transaction is still open on it (a pool that does not reset): no SET made here would be
        # sure to last.
        raise DisconnectionError("the session's time zone was changed inside an open transaction")
    _pin(connection)


def _pin(connection: psycopg.Connection[Any]) -> None:
    # In a transaction the SET would be undone by the first rollback, which is what a pool does at every
    # return.
    before = connection.autocommit
    connection.autocommit = True
    try:
        connection.execute(_PIN)
    finally:
        if not connection.closed:
            connection.autocommit = before


def _is_pinned(connection: psycopg.Connection[Any]) -> bool:
    status = connection.pgconn.parameter_status
    return status(b"TimeZone") == b"UTC" and (status(b"DateStyle") or b"").startswith(b"ISO")
