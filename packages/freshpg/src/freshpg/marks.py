"""The mark on every database that a run makes: by it the next run recognises what a killed one left on a given server.

It is a comment on the database, which a copy of it does not get. A name proves nothing: a database without the mark of
a process that is gone from this very machine is never dropped, whatever it is called.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from .owner import Owner, acting_owner

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORDS = "Made by a run of tests, which drops it: "
_MARKED = """
    select datname, shobj_description(oid, 'pg_database')
      from pg_database
     where starts_with(shobj_description(oid, 'pg_database'), %s)
     order by datname
"""


def mark(connection: psycopg.Connection, name: str, *, note: str = "") -> None:
    """Mark a database that this run made, with a note on what became of it."""
    statement = sql.SQL("comment on database {} is {}")
    words = f"{_WORDS}{acting_owner()}\n{note}"
    connection.execute(statement.format(sql.Identifier(name), sql.Literal(words)))


def note_on(connection: psycopg.Connection, name: str) -> str:
    """Return the note on a marked database; empty where there is no such note or no such database."""
    query = "select shobj_description(oid, 'pg_database') from pg_database where datname = %s"
    row = connection.execute(query, [name]).fetchone()
    return (row[0] or "").partition("\n")[2] if row is not None else ""


def drop_abandoned(connection: psycopg.Connection, prefix: str) -> list[str]:
    """Drop the databases of processes of this machine that are gone for certain; return their names.

    The name has to begin with the prefix as well, and what another role owns stays. Needs autocommit.
    """
    return [name for name in _abandoned(connection) if name.startswith(prefix) and _drop(connection, name)]


def _abandoned(connection: psycopg.Connection) -> Iterator[str]:
    for name, comment in connection.execute(_MARKED, [_WORDS]).fetchall():
        owner = Owner.parse(comment.removeprefix(_WORDS).partition("\n")[0])
        if owner is not None and owner.is_gone():
            yield name


def _drop(connection: psycopg.Connection, name: str) -> bool:
    with suppress(psycopg.Error):
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        return True
    return False
