"""The command `python -m freshpg`: run a command on a server that lives as long as the command."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from .libpq import LIBPQ_PARTS, without_libpq_variables
from .persistent import start_persistent
from .server import PostgresUnavailable
from .server_selection import DEFAULT_IMAGE, choose

_NOT_FOUND = 127


def _parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="python -m freshpg", description="PostgreSQL servers that start on demand."
    )
    verb = whole.add_subparsers(dest="verb", required=True).add_parser(
        "run",
        usage="%(prog)s [options] -- COMMAND...",
        help="run a command on a server that lives as long as the command",
        description="Start a server, run COMMAND with DATABASE_URL, PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE "
        "set, stop the server, and exit with COMMAND's exit code.",
    )
    where = verb.add_mutually_exclusive_group()
    choices = "a new server in Docker or from programs on this machine, or a running one (default: auto)"
    where.add_argument("--postgres", metavar="auto|docker|embedded|URL", default="auto", help=choices)
    keep = "keep the data in DIR; a server that already runs there is used and left running"
    where.add_argument("--directory", metavar="DIR", type=Path, help=keep)
    default = "(default: %(default)s)"
    verb.add_argument("--postgres-image", metavar="IMAGE", default=DEFAULT_IMAGE, help=default)
    verb.add_argument("command", nargs="+", metavar="COMMAND", help="the command and its arguments, after --")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except PostgresUnavailable as error:
        _tell(str(error))
        return os.EX_UNAVAILABLE
    except KeyboardInterrupt:  # before the command runs
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    """Start the server, run the command, and return its exit code.

    If the server is ours, the command gets no variable of libpq's but those that lead to the database.
    """
    with ExitStack() as stack:
        if options.directory:
            stack.enter_context(without_libpq_variables())
            server = stack.enter_context(start_persistent(options.directory))
            _tell(f"PostgreSQL {server.version}, embedded, in {options.directory}")
        else:
            choice = choose(options.postgres, image=options.postgres_image)
            _tell(choice.announcement)
            if choice.kind != "given":
                stack.enter_context(without_libpq_variables())
            server = stack.enter_context(choice.start())
        known = conninfo_to_dict(server.url)
        variables = {name: str(known[part]) for name, part in LIBPQ_PARTS.items() if part in known}
        return _supervise(options.command, variables | {"DATABASE_URL": server.url})


def _supervise(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command to its end; return its exit code, or 128 and the number of the signal that ended it.

    Ctrl-C is the command's to handle, and SIGTERM is passed on to it.
    """
    process: subprocess.Popen[bytes] | None = None
    is_asked_to_end = False

    def pass_on(number: int, _frame: object) -> None:
        nonlocal is_asked_to_end
        is_asked_to_end = True
        if process is not None:
            process.send_signal(number)

    # A handler and not SIG_IGN, which the command would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, pass_on)
    try:
        process = subprocess.Popen(command, env=os.environ | environment)
        if is_asked_to_end:  # while the command was started
            process.terminate()
    except OSError as error:
        _tell(f"{command[0]}: {error.strerror}")
        return _NOT_FOUND
    code = process.wait()
    return code if code >= 0 else 128 - code


def _tell(line: str) -> None:
    """Print a line for people on stderr, apart from the command's output."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201  for a person


if __name__ == "__main__":
    sys.exit(main())
