"""Run a command on a server that lives as long as the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from .persistent import start_persistent
from .server import (
    LIBPQ_PARTS,
    PostgresUnavailable,
    ensure_database,
    last_line,
    without_libpq_variables,
    without_password,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .server_selection import Choice

_NOT_FOUND = 127


def run(source: Choice | Path, database: str, command: Sequence[str]) -> int:
    """Run the command on the server of a choice or of a persistent directory; return the command's exit code.

    DATABASE_URL and libpq's PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE lead to the database, which is created
    unless it exists. If the server is ours, the command gets no other variable of libpq's. A command that a signal
    ended gives 128 and the signal's number, as in a shell. Raises PostgresUnavailable.
    """
    ours = isinstance(source, Path) or source.kind != "given"
    with without_libpq_variables() if ours else nullcontext(), ExitStack() as stack:
        if isinstance(source, Path):
            server = stack.enter_context(start_persistent(source))
            tell(f"PostgreSQL {server.version}, embedded, in {source}")
        else:
            tell(source.announcement)
            server = stack.enter_context(source.start())
        for note in server.notes:
            tell(note)
        try:
            url = ensure_database(server.url, database)
        except psycopg.Error as error:
            reason = without_password(server.url, last_line(error))
            raise PostgresUnavailable(f"Cannot create the database {database}: {reason}.") from None
        known = psycopg.conninfo.conninfo_to_dict(url)
        variables = {
            name: str(known[part]) for name, part in LIBPQ_PARTS.items() if known.get(part) is not None
        }
        return supervise(command, variables | {"DATABASE_URL": url})


def supervise(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command to its end: Ctrl-C is the command's to handle, and SIGTERM is passed on to it."""
    process: subprocess.Popen[bytes] | None = None
    asked_to_end = False

    def pass_on(number: int, _frame: object) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        if process is not None:
            process.send_signal(number)

    # A handler and not SIG_IGN, which the command would inherit.
    handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: pass_on}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        process = subprocess.Popen(command, env=os.environ | environment)
        if asked_to_end:
            # The signal came before the command was started.
            process.terminate()
        code = process.wait()
    except OSError as error:
        tell(f"{command[0]}: {error.strerror}")
        return _NOT_FOUND
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
    return code if code >= 0 else 128 - code


def tell(line: str) -> None:
    """Print a line for people on stderr, apart from the command's output."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201  for a person
