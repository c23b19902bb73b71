"""Open psql on the configured database: `nox -s db_shell`, which also finds the database."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from backend.config import load_settings
from backend.errors import UserError
from devtools.terminal import enter
from freshpg import PostgresUnavailable, find_binaries


def main(arguments: Sequence[str] | None = None) -> None:
    """Become psql."""
    conninfo, environment = connection_words(load_settings().url)
    psql = find_psql()
    command = [psql, "--dbname", conninfo, *(sys.argv[1:] if arguments is None else arguments)]
    os.execve(psql, command, os.environ | environment)  # noqa: S606  a list of arguments, and no shell


def connection_words(url: URL) -> tuple[str, dict[str, str]]:
    """Return how libpq's programs are told to connect as the application does: a connection string, and variables.

    The password travels in the environment, where no list of processes shows it.
    """
    _, parameters = url.get_dialect()().create_connect_args(url)
    password = parameters.pop("password", None)
    return make_conninfo(**parameters), {"PGPASSWORD": password} if password else {}


def find_psql() -> str:
    """Find the system's psql, which edits lines, or the one that comes with the embedded server, which does not."""
    if found := shutil.which("psql"):
        return found
    try:
        bundled = find_binaries().program("psql")
    except PostgresUnavailable:
        bundled = ""
    if not Path(bundled).is_file():
        raise UserError("psql is not there: install your system's postgresql-client.")
    return bundled


if __name__ == "__main__":
    enter(main)
