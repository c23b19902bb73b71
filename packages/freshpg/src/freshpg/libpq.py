"""Connections by libpq: URLs and the variables that it reads, the errors that it reports, and servers' versions."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

CONNECT_SECONDS = 10
LIBPQ_PARTS = {
    "PGHOST": "host",
    "PGPORT": "port",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGDATABASE": "dbname",
}
"""Variables by which programs find a database, and the part of its URL that each holds."""

NO_TIMEOUTS = (
    "select set_config(name, '0', false) from pg_settings where name in "
    "('idle_session_timeout', 'lock_timeout', 'statement_timeout', 'transaction_timeout')"
)
"""A role may have timeouts; the last is not known to every version."""

_SESSION_VARIABLES = ("PGREQUIRESSL", "PGDATESTYLE", "PGTZ", "PGGEQO")


@contextmanager
def without_libpq_variables() -> Iterator[None]:
    """Hide libpq's variables (PGSSLMODE, PGSERVICE ...) from this process and its children during the block.

    They are meant for another server and would break connections to the servers that freshpg starts.
    """
    options = [option.envvar.decode() for option in pq.Conninfo.parse(b"") if option.envvar]
    names = (*options, *_SESSION_VARIABLES)
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        for name, value in hidden.items():
            os.environ.setdefault(name, value)


def connect(url: str, *, seconds: int = CONNECT_SECONDS) -> psycopg.Connection[Any]:
    """Connect in autocommit mode."""
    return psycopg.connect(url, autocommit=True, connect_timeout=seconds)


def short_version(text: str) -> str:
    """Find the version in what a program or a server says of itself (`postgres (PostgreSQL) 18.6 (Debian ...)`)."""
    found = re.search(r"\d+(?:\.\d+)?(?:(?:beta|rc)\d+)?", text)
    return found.group() if found else "of unknown version"


def major_version(version: str) -> int:
    """Return the major version of a short version; 0 if it is unknown."""
    found = re.match(r"\d+", version)
    return int(found.group()) if found else 0


def connected_version(connection: psycopg.Connection[Any]) -> str:
    return short_version(connection.info.parameter_status("server_version") or "")


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message, which in libpq's is the reason, but for indented advice."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("\t", " "))]
    return lines[-1].strip() if lines else type(error).__name__


class SecretURL(str):
    """A URL whose `repr` shows no password; pytest prints the `repr` of values in failing tests."""

    __slots__ = ()

    def __repr__(self) -> str:
        hidden = re.sub(r"(?<=password=)[^&]*", "***", self)
        return repr(re.sub(r"(?<=://)([^/?@]*?):[^/?]*@", r"\1:***@", hidden))


def database_url(url: str, name: str) -> str:
    """Return `url` with its database replaced by `name`; everything else stays as it was, byte for byte."""
    scheme, _, rest = url.partition("://")
    place, question, query = rest.partition("?")
    # For libpq the parameter wins over the path.
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] != "dbname")
    parameters = f"{question}{kept}" if kept else ""
    return f"{scheme}://{place.partition('/')[0]}/{quote(name, safe='')}{parameters}"


def sqlalchemy_url(url: str) -> SecretURL:
    """Return a `postgresql://` URL in the form that makes SQLAlchemy use psycopg 3."""
    return SecretURL(re.sub(r"^postgresql://", "postgresql+psycopg://", url))


def place_of(url: str) -> str:
    """Return the URL's host, port and database, for people."""
    known = conninfo_to_dict(url)
    return f"{known.get('host', 'the local socket')}:{known.get('port', 5432)}/{known.get('dbname')}"
