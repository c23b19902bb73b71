"""Run a command with DATABASE_URL pointing to a server that lives as long as the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .databases import ensure_database
from .libpq import without_libpq_variables
from .persistent import start_persistent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .choose import Choice
    from .server import Server

_CONTRADICTING = ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB")
_NOT_FOUND = 127


def run(source: Choice | Path, database: str, command: Sequence[str]) -> int:
    """Run the command on the server of a choice or of a persistent directory; return the command's exit code.

    The database is created if it is not there, and announced in one line on stderr. A command that a signal ended gives
    128 and the signal's number, as in a shell. What libpq reads from the environment (PGSSLMODE and its like) reaches
    neither the command nor this process's own connections where the server is ours. Raises PostgresUnavailable.
    """
    ours = isinstance(source, Path) or source.kind != "given"
    with without_libpq_variables() if ours else nullcontext(), serving(source) as server:
        url = ensure_database(server.url, database)
        return supervise(command, {"DATABASE_URL": url})


@contextmanager
def serving(source: Choice | Path) -> Iterator[Server]:
    """Lend a server from a choice or a persistent directory, announced, and stop it afterwards."""
    if isinstance(source, Path):
        with start_persistent(source) as server:
            tell(f"PostgreSQL {server.version}, embedded, in {source}")
            for note in server.notes:
                tell(note)
            yield server
    else:
        tell(source.announcement)
        with source.start() as server:
            yield server


def supervise(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command to its end: Ctrl-C is its own to answer, and SIGTERM is passed on to it."""
    variables = {name: value for name, value in os.environ.items() if name not in _CONTRADICTING}
    process: subprocess.Popen[bytes] | None = None
    asked_to_end = False

    def pass_on(number: int, _frame: object) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        if process is not None:
            process.send_signal(number)

    # A handler and not SIG_IGN, which the command would inherit.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, pass_on)
    try:
        try:
            process = subprocess.Popen(command, env=variables | environment)
        except OSError as error:
            tell(f"{command[0]}: {error.strerror}")
            return _NOT_FOUND
        if asked_to_end:
            # It came between the handler and the command.
            process.terminate()
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def tell(line: str) -> None:
    """Say a line to the person at the terminal, beside what the command prints."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201  for a person
