"""Open psql on the configured database: `nox -s db_shell`, which also finds the database."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from psycopg.conninfo import make_conninfo

from backend.config import ConfigurationError, load_settings
from backend.devtools.postgres import PostgresUnavailable, find_binaries


def main(arguments: Sequence[str] | None = None) -> None:
    """Become psql. The password travels in the environment, where no list of processes shows it."""
    url = load_settings().url
    # As the application connects, with every parameter of the URL.
    _, parameters = url.get_dialect()().create_connect_args(url)
    password = parameters.pop("password", None)
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    psql = find_psql()
    command = [
        psql,
        "--dbname",
        make_conninfo(**parameters),
        *(sys.argv[1:] if arguments is None else arguments),
    ]
    os.execve(psql, command, environment)  # noqa: S606  a list of arguments, and no shell


def find_psql() -> str:
    """Find the system's psql, which edits lines, or the one that comes with the embedded server, which does not."""
    if found := shutil.which("psql"):
        return found
    try:
        bundled = find_binaries().program("psql")
    except PostgresUnavailable:
        bundled = ""
    if not Path(bundled).is_file():
        raise ConfigurationError("psql is not there: install your system's postgresql-client.")
    return bundled


if __name__ == "__main__":
    main()
