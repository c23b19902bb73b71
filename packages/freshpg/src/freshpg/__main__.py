"""The command `python -m freshpg`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .command import run, tell
from .server import ADMINISTRATIVE_DATABASE, PostgresUnavailable
from .server_selection import DEFAULT_IMAGE, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h."""


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
    verb.add_argument("--database", metavar="NAME", default=ADMINISTRATIVE_DATABASE, help=default)
    verb.add_argument("command", nargs="+", metavar="COMMAND", help="the command and its arguments, after --")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        source = options.directory or choose(options.postgres, image=options.postgres_image)
        return run(source, options.database, options.command)
    except PostgresUnavailable as error:
        tell(str(error))
        return _UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
