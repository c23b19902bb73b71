"""Open psql on the configured database: `nox -s db_shell`, which also finds the database."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg
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
    psql = find_psql(server_version(settings.database_url))
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


def server_version(url: URL) -> int:
    """Return the server's major version, or 0 if the connection fails; psql then reports why."""
    conninfo, _ = connection_words(url)
    try:
        with psycopg.connect(conninfo, password=url.password) as connection:
            return connection.info.server_version // 10000
    except psycopg.OperationalError:
        return 0


def find_psql(major: int) -> str:
    """Find a psql for a server of this version: the system's, or the embedded server's if the system's is too old.

    An older psql cannot describe the objects of a newer server. The embedded psql has no line editing.
    """
    system = shutil.which("psql")
    if system is not None and version_of(system) >= major:
        return system
    try:
        bundled = find_binaries().program("psql")
    except PostgresUnavailable:
        bundled = ""
    found = bundled if Path(bundled).is_file() else system
    if found is None:
        raise UserError(
            f"psql is not installed: install PostgreSQL's client programs, version {major} or later."
        )
    return found


def version_of(program: str) -> int:
    """Return the major version of a program of PostgreSQL; `psql --version` ends in `18.1 (Debian 18.1-1)`."""
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return next((int(word.split(".")[0]) for word in words if word[0].isdigit()), 0)
