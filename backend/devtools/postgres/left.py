"""Queries for what outlives a test: transactions, locks, prepared transactions, and things of the whole server."""

from __future__ import annotations

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
