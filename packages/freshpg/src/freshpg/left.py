"""What outlives a test, and its end: transactions, locks, prepared transactions; and things of the whole server.

What is ended is told in words, one text for each kind, that fail the test.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

_LOOK_SECONDS = 0.005

# Sessions that hold on to something, and whether that is a transaction and not only a lock of the session.
HOLDING = """
    select a.pid, a.state, a.query, a.backend_xid is not null or a.state like 'idle in transaction%%'
      from pg_stat_get_activity(null) a
     where a.datid = (select oid from pg_database where datname = current_database())
       and a.pid <> pg_backend_pid() and a.pid <> all(%(spared)s) and a.backend_type = 'client backend'
       and (a.state like 'idle in transaction%%' or a.backend_xid is not null
            or exists (select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory'))
     order by a.pid
"""

BLOCKING = """
    select distinct a.pid, a.state, a.query, true
      from pg_locks l join pg_stat_activity a on a.pid = l.pid
     where a.backend_type = 'client backend'
       and l.locktype = 'relation' and l.granted and l.pid <> pg_backend_pid() and l.pid <> all(%(spared)s)
       and l.database = (select oid from pg_database where datname = current_database())
       and l.relation = any(%(tables)s)
     order by a.pid
"""

# In numbers: transactions, locks of sessions, prepared transactions. The fewer locks its own transaction has by then,
# the sooner pg_locks is read.
COUNTS = """
    select (select count(*) from pg_stat_get_activity(null) a
             where a.datid = {oid} and a.pid <> pg_backend_pid() and a.pid <> all($1)
                   and a.backend_type = 'client backend'
                   and (a.state like 'idle in transaction%' or a.backend_xid is not null)),
           (select count(*) from pg_locks
             where locktype = 'advisory' and database = {oid} and pid <> pg_backend_pid() and pid <> all($1)),
           (select count(*) from pg_prepared_xact() where dbid = {oid})
"""
NOTHING_LEFT = (b"0", b"0", b"0")

SERVERS = """
    (select array[(select bit_xor(oid::bigint) from pg_authid where oid >= 16384),
                  (select bit_xor(oid::bigint) from pg_tablespace where oid >= 16384),
                  (select bit_xor(hashtext(slot_name)) from pg_get_replication_slots() where not temporary),
                  (select bit_xor(hashtext(gid)) from pg_prepared_xact())])
"""
"""An expression that changes whenever things come or go that `leaks.py` looks for; on servers of our own alone."""


def end_holding(connection: psycopg.Connection, spared: Sequence[int], seconds: float) -> Iterator[str]:
    """Give those that are about to end their transactions the time, and end the rest."""
    deadline = time.monotonic() + seconds
    while rows := connection.execute(HOLDING, {"spared": list(spared)}).fetchall():
        if time.monotonic() > deadline or all(not row[3] for row in rows):
            break
        time.sleep(_LOOK_SECONDS)
    open_ = [row for row in rows if row[3]]
    yield from _end(connection, open_, f"A transaction was still open {seconds:g} s after the test")
    locked = [row for row in rows if not row[3]]
    yield from _end(connection, locked, "A session's advisory lock was still held after the test")


def end_blocking(
    connection: psycopg.Connection, spared: Sequence[int], tables: Sequence[int], seconds: float
) -> Iterator[str]:
    """End those that hold locks on the tables, which were waited for already, for so many seconds."""
    rows = connection.execute(BLOCKING, {"spared": list(spared), "tables": list(tables)}).fetchall()
    yield from _end(connection, rows, f"The tables were still locked {seconds:g} s after the test")


def _end(connection: psycopg.Connection, rows: Sequence[tuple[Any, ...]], what: str) -> Iterator[str]:
    if not rows:
        return
    connection.execute(
        "select pg_terminate_backend(pid, 2000) from unnest(%s::int[]) pid", [[row[0] for row in rows]]
    )
    told = "\n".join(f"  pid {pid} ({state}), last statement: {query}" for pid, state, query, _ in rows)
    yield (
        f"{what}, by:\n{told}\nThese connections were ended. Commit, roll back or close what the test opens."
    )


def end_prepared(connection: psycopg.Connection) -> Iterator[str]:
    """Roll back the database's prepared transactions."""
    query = "select gid from pg_prepared_xacts where database = current_database()"
    names = [name for (name,) in connection.execute(query).fetchall()]
    for name in names:
        connection.execute(sql.SQL("rollback prepared {}").format(sql.Literal(name)))
    if names:
        yield (
            f"The prepared transaction {', '.join(names)} was left after the test, and was rolled back. "
            "Commit it or roll it back in the test."
        )
