"""Databases that a killed run left on a given server: recognised by a comment, and dropped by the next run.

The comment names the process that made the database: the machine's boot, the process number and its start time, which
no other process has at any time. A name proves nothing: a database without the comment of a process of this machine
that has ended is never dropped. A copy of a database does not get its comment.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

_WORDS = "Made by a test run, which drops it: "
_COMMENTED = """
    select datname, shobj_description(oid, 'pg_database') from pg_database
     where starts_with(datname, %s) and starts_with(shobj_description(oid, 'pg_database'), %s)
     order by datname
"""


def comment(connection: psycopg.Connection[Any], name: str, text: str) -> None:
    """Comment on a database of this run."""
    statement = sql.SQL("comment on database {} is {}")
    connection.execute(statement.format(sql.Identifier(name), sql.Literal(text)))


def mark(connection: psycopg.Connection[Any], name: str, owner: str) -> None:
    """Mark a database as made by a process, named as `this_process` does."""
    comment(connection, name, _WORDS + owner)


def drop_orphans(connection: psycopg.Connection[Any], prefix: str) -> list[str]:
    """Drop databases of this prefix whose process has ended on this machine; return their names. Needs autocommit."""
    rows = connection.execute(_COMMENTED, [prefix, _WORDS]).fetchall()
    orphans = (name for name, text in rows if _has_ended(text.removeprefix(_WORDS)))
    return [name for name in orphans if _drop(connection, name)]


@functools.cache
def this_process() -> str:
    """Name this process as no other process is ever named: machine, boot and process space, number, start time."""
    return f"{_machine()} {os.getpid()} {_started(os.getpid()) or 'unknown'}"


def _has_ended(owner: str) -> bool:
    match owner.split(" "):
        case [machine, pid, started] if pid.isdecimal() and pid.isascii():
            return machine == _machine() and _started(int(pid)) != started
    return False


def _drop(connection: psycopg.Connection[Any], name: str) -> bool:
    # A database of another role is not ours to drop.
    with suppress(psycopg.Error):
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        return True
    return False


@functools.cache
def _machine() -> str:
    """Name this boot of this machine and its process number space, which a container has of its own."""
    if sys.platform == "linux":
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            return f"{boot}/{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"
        return f"unknown/{os.urandom(8).hex()}"
    return _output("sysctl", "-n", "kern.bootsessionuuid") or f"unknown/{os.urandom(8).hex()}"


def _started(pid: int) -> str | None:
    """Return when a process started, in the system's words; None if it has ended."""
    if sys.platform == "linux":
        try:
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # After the command, which may hold anything: the state, and as the 22nd word of all the start time.
        words: list[str] = status.rpartition(") ")[2].split(" ")
        return None if words[0] in "ZX" else words[19]
    return "-".join(_output("ps", "-o", "lstart=", "-p", str(pid)).split()) or None


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
