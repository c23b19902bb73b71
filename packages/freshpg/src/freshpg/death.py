"""A server that died in mid-run, or whose disk is full: told once, as what it is, with what would help."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from .engine import within
from .log import NO_SPACE, lines_since, read_log, tail_of
from .probe import refusal_of_the_dead
from .server import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .server import Server

_DISK_FULL = "53100"
_RECENT_SECONDS = 60.0
_ENDED_FOR_SPACE = re.compile(rf"\S+ \S+ UTC \[\d+\] (?:\[[^]]*\] )?(?:FATAL|PANIC): .*{NO_SPACE}")
"""A line by which the server itself ends a session, or all of them: no statement can raise one of these."""
_LOG_LINES = 12
_LOG_SECONDS = 3.0
_CHAIN = 20
"""So many links of an exception's causes are followed: a chain may lead back into itself."""


def last_word(server: Server, error: BaseException | None) -> str | None:
    """Return one line about why this server ends the run, if it does; `error` is what a test met.

    A server that does not answer ends it, and so does one of ours that has no room left. That an error is the
    server's end is never taken from the error alone: it is asked.
    """
    refusal = refusal_of_the_dead(server.url, far=server.kind == "given")
    if refusal is not None:
        return obituary(server, refusal)
    if server.kind != "given" and (
        ran_out_of_space(error) or (may_be_cut_off(error) and _ran_out_of_space_lately(server))
    ):
        return f"{_name(server)} has no room left: {cure(server)}"
    return None


def obituary(server: Server, refusal: str) -> str:
    """Say on one line what became of a server that takes no connection any more."""
    said = server.autopsy() or refusal
    line = f"{_name(server)} died in the middle of the run: {said}."
    if NO_SPACE in log_of(server):
        line += f" It had no room left: {cure(server)}"
    return line


def cure(server: Server) -> str:
    """Say what makes room where a server's data lie."""
    if server.kind == "docker":
        return "its data lie in memory, half of the container engine's at most; give the engine more."
    if server.log.startswith("/dev/shm/"):  # noqa: S108 (compared alone)
        return (
            "its data lie in /dev/shm; make that larger (mount -o remount,size=2g /dev/shm, or --shm-size=2g "
            "of the container that the tests run in)."
        )
    return f"its data lie beside {server.log}; free some space there."


def ran_out_of_space(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it came from, is PostgreSQL's disk_full (SQLSTATE 53100)."""
    return _DISK_FULL in _sqlstates(error)


def may_be_cut_off(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it came from, may be of a connection that was refused or lost.

    Of these libpq keeps the words alone, and psycopg has no SQLSTATE, as for its own errors; other drivers have one
    of class 08, and a server that ends its connections says 57P01 or one that follows it.
    """
    return any(state is None or state.startswith(("08", "57P")) for state in _sqlstates(error))


def _sqlstates(error: BaseException | None) -> Iterator[str | None]:
    for _ in range(_CHAIN):
        if error is None:
            return
        # SQLAlchemy's errors have the driver's, and every driver for PostgreSQL's has the SQLSTATE.
        driver_error = getattr(error, "orig", error)
        state = getattr(driver_error, "sqlstate", "")
        # Anything may have an attribute of that name.
        if state is None or isinstance(state, str):
            yield state
        error = error.__cause__ or error.__context__


def _ran_out_of_space_lately(server: Server) -> bool:
    # Another test's statement may have filled the disk, and PostgreSQL ended all connections with that one's.
    lines = lines_since(log_of(server), time.time() - _RECENT_SECONDS)
    return any(_ENDED_FOR_SPACE.match(line) for line in lines)


def log_of(server: Server) -> str:
    """Return the end of the server's log; nothing where it cannot be read."""
    if not server.log:
        return ""
    try:
        return within(_LOG_SECONDS, lambda: read_log(server), "reading the log")
    except Exception:  # noqa: BLE001 (the engine's own client raises what it likes, and the engine may be gone)
        return ""


def with_log(server: Server, line: str) -> str:
    """Return the line, and below it the end of the server's log."""
    tail = tail_of(log_of(server), _LOG_LINES)
    return f"{line}\nIts log ends:\n{tail}" if tail else line


def _name(server: Server) -> str:
    if server.kind == "given":
        return f"The PostgreSQL server given, at {without_password(server.url)},"
    where = "in Docker" if server.kind == "docker" else "embedded"
    return f"PostgreSQL {server.version}, {where},"
