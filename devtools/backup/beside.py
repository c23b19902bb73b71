"""Databases beside one: the new one that is being filled, which takes its name, and the old ones that were kept.

All statements run on a connection to another database of the same server, in autocommit.
"""

import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg import sql

from backend.errors import UserError

from .properties import comment_on

_LONGEST = 63
"""As many bytes of a name PostgreSQL keeps."""
_MARK = 4711
"""The connection limit that a new database is made with: a comment can only come after that, and what is killed in
between must be known all the same."""
_LOCK = "procore_integrator db_restore "
_FILLING = "Made by db_restore, which is not done with it, for the database "
_KEPT = "Kept by db_restore: so it was when a backup took its place as the database "
_PAUSE = 0.005
# An ordinary role is not told what another's connection is for.
_CLIENTS = """
    (SELECT a.*, (pg_has_role(usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))
                 AND (m.rolsuper OR NOT r.rolsuper) AS is_ours_to_end
     FROM pg_stat_activity AS a
     JOIN pg_roles AS r ON r.oid = usesysid
     JOIN pg_roles AS m ON m.rolname = current_user
     WHERE datname = %s AND pid <> pg_backend_pid() AND
       coalesce(backend_type, 'client backend') IN ('client backend', 'walsender')) AS clients
"""
_END = f"SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM {_CLIENTS} WHERE is_ours_to_end"  # noqa: S608  of constants alone; the name is a parameter
_OTHERS = f"SELECT pid, usename, application_name FROM {_CLIENTS} WHERE NOT is_ours_to_end ORDER BY pid"  # noqa: S608  of constants alone; the name is a parameter
_JUST_MADE = """
    SELECT datname FROM pg_database
    WHERE datname ~ %s AND datconnlimit = %s AND shobj_description(oid, 'pg_database') IS NULL
"""
# To the end of the line, for another database's name may begin with this one's. And whose name is not of our making
# is no longer ours to drop: it may have been given the old one again, by hand.
_COMMENTED = r"""
    SELECT datname FROM pg_database
    WHERE datname ~ %s AND starts_with(shobj_description(oid, 'pg_database') || E'\n', %s || E'\n') ORDER BY datname
"""
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = %s ORDER BY gid"
_NEW = "_new_[0-9a-f]{8}$"
_BEFORE = "_before_[0-9]{8}T[0-9]{6}Z(_[0-9]+)?$"


def administrative(name: str) -> str:
    """Return the database to work from: it must be another than the one that is renamed."""
    return "template1" if name == "postgres" else "postgres"


def new_name(name: str) -> str:
    return name_beside(name, f"_new_{secrets.token_hex(4)}")


def name_beside(name: str, suffix: str) -> str:
    """Append to a name, of which what would be too long for PostgreSQL is left out."""
    room = _LONGEST - len(suffix.encode())
    return name.encode()[:room].decode(errors="ignore") + suffix


@contextmanager
def alone(connection: psycopg.Connection, name: str) -> Iterator[None]:
    """Let one restoration of a database run at a time. Raises UserError where another does."""
    query = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
    [(is_ours,)] = connection.execute(query, [_LOCK + name]).fetchall()
    if not is_ours:
        raise UserError(
            f"Another db_restore of {name} is at work. Wait until it is done. Nothing was changed."
        )
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [_LOCK + name])


def free_name(connection: psycopg.Connection, name: str, suffix: str) -> str:
    """Append to a name what makes it one that is not taken."""
    number = 1
    while exists(connection, found := name_beside(name, suffix if number == 1 else f"{suffix}_{number}")):
        number += 1
    return found


def drop_unfinished(connection: psycopg.Connection, name: str) -> None:
    """Drop what an interrupted restoration left, which is certain while we are alone."""
    pattern = f"^{re.escape(name_beside(name, '_new_12345678')[:-8])}[0-9a-f]{{8}}$"
    just_made = connection.execute(_JUST_MADE, [pattern, _MARK]).fetchall()
    for unfinished in (*_commented(connection, _NEW, f"{_FILLING}{name}."), *(made for (made,) in just_made)):
        drop(connection, unfinished)


def create(connection: psycopg.Connection, statement: sql.Composed, new: str, name: str) -> None:
    """Create a new database by this statement, marked as one that is not done yet."""
    connection.execute(statement + sql.SQL(" CONNECTION LIMIT {}").format(sql.Literal(_MARK)))
    connection.execute(comment_on(new, f"{_FILLING}{name}."))
    # Of thousands of commits none has to wait for the disk: that which gives it its name waits for all of them.
    connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(new)))


def kept(connection: psycopg.Connection, name: str) -> list[str]:
    """List the old databases that restorations have kept of this one."""
    return _commented(connection, _BEFORE, f"{_KEPT}{name}.")


def drop(connection: psycopg.Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def exists(connection: psycopg.Connection, name: str) -> bool:
    return connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def comment_of(connection: psycopg.Connection, name: str) -> str | None:
    query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
    row = connection.execute(query, [name]).fetchone()
    return None if row is None else row[0]


def swap(
    connection: psycopg.Connection,
    other: psycopg.Connection,
    *,
    name: str,
    new: str,
    old: str,
    comment: str | None,
) -> int:
    """Give the new database the name, and the old one another, at once; return how many connections were ended.

    From the first rename on nobody gets in, and `other` ends who is there. Stopped at any point, both are done or
    neither. Raises UserError where somebody is there who is not ours to end.
    """
    refuse_if_used_by_others(connection, name)
    ended = _Ender(other, name)
    before = comment_of(connection, name)
    try:
        with ended, connection.transaction():
            _rename(connection, name, old)
            rename(connection, new, name, comment)
            connection.execute(comment_on(old, f"{_KEPT}{name}.\n{before or ''}"))
    except psycopg.errors.ObjectInUse as error:
        # A prepared transaction, or somebody who came meanwhile.
        refuse_if_used_by_others(other, name)
        raise UserError(
            f"{name} is in use: {error.diag.message_detail}\nEnd that, and try again. Nothing was changed."
        ) from error
    return ended.count


def rename(connection: psycopg.Connection, new: str, name: str, comment: str | None) -> None:
    """Give a new database its name and its comment."""
    with connection.transaction():
        _rename(connection, new, name)
        connection.execute(comment_on(name, comment))


def _rename(connection: psycopg.Connection, this: str, that: str) -> None:
    statement = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    connection.execute(statement.format(sql.Identifier(this), sql.Identifier(that)))


def refuse_if_used_by_others(connection: psycopg.Connection, name: str) -> None:
    """Raise UserError where somebody is in the database whom this role may not send away."""
    found = connection.execute(_OTHERS, [name]).fetchall()
    there = [f"pid {pid} of {role} ({application or 'no name'})" for pid, role, application in found]
    there += [
        f"the prepared transaction {gid!r}" for (gid,) in connection.execute(_PREPARED, [name]).fetchall()
    ]
    if there:
        raise UserError(
            f"{name} is in use by what is not ours to end: {', '.join(there)}.\n"
            "End that, and try again. Nothing was changed."
        )


class _Ender:
    """Ends the connections to a database, again and again, for as long as the block takes."""

    def __init__(self, connection: psycopg.Connection, name: str) -> None:
        self.count = 0
        self._connection, self._name = connection, name
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ender")

    def __enter__(self) -> None:
        # Once before the lock on the name, which waits for who is there in steps of 0.1 s.
        self._end()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(psycopg.Error):
            while not self._done.wait(_PAUSE):
                self._end()

    def _end(self) -> None:
        [(count,)] = self._connection.execute(_END, [self._name]).fetchall()
        self.count += count


def _commented(connection: psycopg.Connection, pattern: str, comment: str) -> list[str]:
    return [name for (name,) in connection.execute(_COMMENTED, [pattern, comment]).fetchall()]
