"""Open psql on the configured database: `nox -s db_shell`, which also finds the database."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from backend.config import load_settings
from backend.database_url import libpq_parameters
from backend.errors import UserError
from freshpg import PostgresUnavailable, find_binaries

CONNECT_SECONDS = "5"
"""A port may accept connections and never answer."""


def main(arguments: Sequence[str]) -> int:
    """Run psql with these arguments, and return its exit code."""
    settings = load_settings()
    conninfo, environment = connection_words(settings.database_url)
    psql = find_psql()
    # psql handles Ctrl-C itself. This is a handler and not SIG_IGN, because psql would inherit SIG_IGN.
    signal.signal(signal.SIGINT, lambda *_: None)
    command = [psql, "--dbname", conninfo, *arguments]
    return subprocess.run(command, env=os.environ | environment, check=False).returncode


def connection_words(url: URL) -> tuple[str, dict[str, str]]:
    """Return a connection string and environment variables with which libpq's programs connect like the application.

    The password is in the environment, because a list of processes would show it in the connection string.
    """
    parameters = {"connect_timeout": CONNECT_SECONDS} | libpq_parameters(url)
    password = parameters.pop("password", None)
    return make_conninfo(**parameters), {"PGPASSWORD": password} if password else {}


def find_psql() -> str:
    """Find the system's psql, or else the embedded server's, which has no line editing. Raises UserError."""
    with suppress(PostgresUnavailable):
        if found := shutil.which("psql") or shutil.which(find_binaries().program("psql")):
            return found
    raise UserError("psql is not installed: install PostgreSQL's client programs.")
