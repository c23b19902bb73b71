"""What a failed test's report says of its database: how to open it, who held it, what it was told and what it said.

All of it is gathered at the moment of the failure, before anything is torn down, and within a few seconds. Whatever
of it cannot be had is one line in its place.
"""

from __future__ import annotations

import shlex
import time
from itertools import groupby
from typing import TYPE_CHECKING

from psycopg import conninfo

from .engine import within
from .log import lines_since, read_log
from .probe import ask
from .server import database_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .ledger import Use
    from .server import Server

SECONDS = 1.0
_LOCKS_SECONDS = 0.4
_ENGINE_SECONDS = 3.0
"""For the log of a server in a container, for which its engine is asked."""
_STATEMENTS_SHOWN = 20
_STATEMENT_CHARACTERS = 300
_LOG_LINES = 40
_LOG_CHARACTERS = 300

_FATES = {
    "session": "rolled back after the test",
    "committing": "emptied after the test",
    "clone": "dropped after the test",
    "empty": "dropped after the test",
}

_LOCKS = """
    select a.pid, coalesce(a.state, a.backend_type),
           coalesce(string_agg(distinct
               case when l.granted then 'holds ' else 'waits for ' end || l.mode || ' on ' ||
               coalesce(l.relation::regclass::text,
                        case when l.locktype = 'advisory' then 'advisory ' || l.classid || ', ' || l.objid
                             else l.locktype end), '; ')
               filter (where l.locktype <> 'virtualxid' and (l.granted is false or l.locktype <> 'transactionid')
                       and (l.relation is null or l.relation >= 16384)), ''),
           array_to_string(pg_blocking_pids(a.pid), ', '), left(a.query, 300)
      from pg_stat_activity a join pg_locks l on l.pid = a.pid
     where a.datname = current_database() and a.pid <> pg_backend_pid()
     group by a.pid, a.state, a.backend_type, a.query
     order by a.pid
     limit 20
"""


def section(use: Use, server: Server, since: float, *, kept: str | None = None) -> str:
    """Describe the database that a failed test used, since the time (in seconds of the epoch) at which it began.

    `kept` is what is said of a database that stays: nothing where it goes.
    """
    deadline = time.monotonic() + SECONDS
    parts = [
        [psql(server, kept_name(use, kept)), f"Tier {use.tier}, {_fate(use, kept)}."],
        _titled("Locks at the failure:", lambda: _locks(server, use.database)),
        _titled("Last statements, oldest first:", lambda: _folded(use.statements)),
        _titled(
            "The server's log of this database, meanwhile:",
            lambda: _log(server, use.database, since, deadline - time.monotonic()),
        ),
    ]
    return "\n".join(line for part in parts for line in part)


def kept_name(use: Use, kept: str | None) -> str:
    """Return the name under which the database is found when the report is read."""
    return use.database if kept is None or use.kept_as is None else use.kept_as


def psql(server: Server, database: str) -> str:
    """Return the command that opens a database; the password of a server that was given is left out."""
    url = database_url(server.url, database)
    if server.kind != "given":
        return f"psql {shlex.quote(url)}"
    # As libpq reads it, and not cut from the URL, where it may stand in more places than one.
    known = {name: value for name, value in conninfo.conninfo_to_dict(url).items() if "password" not in name}
    return f"psql {shlex.quote(conninfo.make_conninfo('', **known))}"


def _fate(use: Use, kept: str | None) -> str:
    if kept is not None:
        return f"kept{f' ({kept})' if kept else ''}"
    return f"{_FATES[use.tier]} (--keep-database keeps it)"


def _titled(title: str, lines: Callable[[], Iterable[str]]) -> Iterator[str]:
    try:
        found = [f"  {line}" for line in lines()]
    except Exception as error:  # noqa: BLE001 (the report of a failure is no place for another)
        said = " ".join(str(error).split()) or type(error).__name__
        found = [f"  cannot be had: {said[:_LOG_CHARACTERS]}"]
    yield title if found else f"{title} none"
    yield from found


def _locks(server: Server, database: str) -> Iterator[str]:
    for pid, state, locks, blockers, query in ask(database_url(server.url, database), _LOCKS, _LOCKS_SECONDS):
        if locks:
            blocked = f", blocked by pid {blockers}" if blockers else ""
            yield f"pid {pid} ({state}{blocked}) {locks}"
            yield f"    last statement: {' '.join(query.split())}"


def _folded(statements: Iterable[str]) -> list[str]:
    """Return the last of the statements, each on a line, with what was repeated folded into one."""
    lines = []
    for statement, same in groupby(" ".join(each.split()) for each in statements):
        times = sum(1 for _ in same)
        text = _cut(statement, _STATEMENT_CHARACTERS)
        lines.append(f"{text}  ({times} times)" if times > 1 else text)
    left_out = len(lines) - _STATEMENTS_SHOWN
    return ([f"... {left_out} before these"] if left_out > 0 else []) + lines[-_STATEMENTS_SHOWN:]


def _log(server: Server, database: str, since: float, seconds: float) -> list[str]:
    if server.kind == "given":
        return ["not looked for on a server that was given"]
    patience = _ENGINE_SECONDS if server.kind == "docker" else max(seconds, 0.05)
    text = within(patience, lambda: read_log(server, since), "reading the log")
    lines = [_cut(line, _LOG_CHARACTERS) for line in lines_since(text, since, database)]
    left_out = len(lines) - _LOG_LINES
    return ([f"... {left_out} lines before these"] if left_out > 0 else []) + lines[-_LOG_LINES:]


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]} ..."
