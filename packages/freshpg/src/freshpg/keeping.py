"""The databases of failed tests that `--keep-database` keeps: what must be neither emptied nor dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from .probe import NoAnswer, ask

if TYPE_CHECKING:
    from .ledger import Use
    from .server import Server

_SECONDS = 3.0

# Names are random, and so one set serves however many runs there are in a process.
_kept: set[str] = set()


def keep(use: Use, server: Server) -> str:
    """Have this process leave the database as the test left it; return what to say of what that loses, if anything.

    A comment on the database names the test. It takes the place of the mark (`marks.py`) by which a later run would
    know the database as one that a killed run left, and drop it.
    """
    lost = "without what the test had not committed" if use.tier == "session" else ""
    if use.keep is not None:
        try:
            lost = use.keep()
        except Exception as error:  # noqa: BLE001 (the report of a failure is no place for another)
            lost = f"without what the test had not committed: {' '.join(str(error).split())}"
    _kept.add(use.database)
    comment = sql.SQL("comment on database {} is {}").format(
        sql.Identifier(use.database), sql.Literal(f"kept: {use.test}")
    )
    try:
        ask(server.url, comment.as_string(), _SECONDS)
    except NoAnswer as error:
        unmarked = f"a later run may take it for abandoned, for it could not be marked as kept: {error}"
        lost = "; ".join(filter(None, [lost, unmarked]))
    return lost


def renamed(before: str, after: str) -> None:
    """Know a kept database by its new name; the old one is free for another."""
    _kept.discard(before)
    _kept.add(after)


def is_kept(database: str) -> bool:
    """Tell whether the database is one that nothing may empty, write to or drop any more."""
    return database in _kept
