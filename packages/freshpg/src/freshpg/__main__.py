"""The command `python -m freshpg`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .choose import DEFAULT_IMAGE, choose
from .run import run, tell
from .server import PostgresUnavailable
from .show_cache import show_cache

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_DATABASE = "procore_integrator"
_UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h: a service that is needed is not there."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    whole = argparse.ArgumentParser(
        prog="python -m freshpg", description="PostgreSQL servers that come and go."
    )
    verbs = whole.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser(
        "run",
        help="run a command with DATABASE_URL pointing to a server that lives as long as the command",
        description="Start a PostgreSQL server, run COMMAND with DATABASE_URL set to a database on it, "
        "stop the server after it, and exit with COMMAND's exit code.",
        usage="%(prog)s [options] -- COMMAND...",
    )
    where = verb.add_mutually_exclusive_group()
    where.add_argument(
        "--postgres",
        metavar="auto|docker|embedded|URL",
        default="auto",
        help="a new, empty server in Docker or of binaries on this machine, or one that runs; auto, the default, "
        "is Docker, else binaries",
    )
    where.add_argument(
        "--directory",
        metavar="DIR",
        type=Path,
        help="keep the data in DIR, made on first use, with binaries of this machine; a server of DIR that runs "
        "already is used",
    )
    verb.add_argument(
        "--postgres-image", metavar="IMAGE", default=DEFAULT_IMAGE, help="(default: %(default)s)"
    )
    verb.add_argument(
        "--database",
        metavar="NAME",
        default=DEFAULT_DATABASE,
        help="created if absent (default: %(default)s)",
    )
    verb.add_argument("command", nargs="+", metavar="COMMAND", help="the command and its arguments, after --")
    verb = verbs.add_parser(
        "cache",
        help="show the initialised data that servers start from, or clear them",
        description="Show what later runs start from: data directories in the user's cache folder, and images of the "
        "Docker engine. Nothing of it is needed: it is made anew when it is gone.",
    )
    verb.add_argument("--clear", action="store_true", help="remove all of it that no container uses")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.verb == "cache":
            show_cache(clear=options.clear)
            return 0
        source = options.directory or choose(options.postgres, image=options.postgres_image)
        return run(source, options.database, options.command)
    except PostgresUnavailable as error:
        tell(str(error))
        return _UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
