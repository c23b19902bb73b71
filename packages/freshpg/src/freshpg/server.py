"""What every way to a server has in common: a running server, its URL, and how it may be unavailable."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote, urlsplit

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["given", "docker", "embedded"]

ADMINISTRATIVE_DATABASE = "postgres"
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


class PostgresUnavailable(Exception):  # noqa: N818 (it says what is so; callers read it as a word)
    """No server can be had; the message says in plain lines what was tried and what would help."""


def _nothing() -> None:
    """Stop nothing: the server belongs to somebody else."""


@dataclass
class Server:
    """A PostgreSQL server that answers.

    `url` is an administrative URL (`postgresql://`, of a role that may create databases) and `version` the server's
    own word for itself (`18.6`). Leaving the `with` block stops the server if it is ours.
    """

    url: str = field(repr=False)
    version: str
    kind: Kind
    on_stop: Callable[[], None] = field(default=_nothing, repr=False)
    notes: tuple[str, ...] = ()
    """Lines for people about how it was started, where that is not what they would expect."""
    log: str = field(default="", repr=False)
    """What its log is read from, a file or the id of its container; empty where it was given."""
    autopsy: Callable[[], str] = field(default=str, repr=False)
    """Says what became of a server that does not answer any more ("it was killed"), if that can be known."""
    hand_over: Callable[[], str] | None = field(default=None, repr=False)
    """Lets the server outlive this process, and returns the command that ends it."""
    _stopped: bool = field(default=False, init=False, repr=False)

    def stop(self) -> None:
        """Stop the server if it is ours; a second call does nothing."""
        if not self._stopped:
            self._stopped = True
            self.on_stop()

    def leave_running(self) -> str:
        """Let the server outlive this process, and return the command that ends it, empty where it is not ours."""
        if self._stopped or self.hand_over is None:
            return ""
        self._stopped = True
        return self.hand_over()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class SecretURL(str):
    """A URL whose `repr`, which reports of failing tests are full of, shows no password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(
            re.sub(r"(?<=://)([^/?@]*?):[^/?]*@", r"\1:***@", re.sub(r"(?<=password=)[^&]*", "***", self))
        )


def local_url(port: int, user: str, password: str, *, host: str = "127.0.0.1") -> str:
    """Return the administrative URL of a server that listens on this port."""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"postgresql://{login}@{host}:{port}/{ADMINISTRATIVE_DATABASE}"


def database_url(url: str, name: str) -> str:
    """Return `url` with its database replaced by `name`; all else stays as it was, byte for byte."""
    scheme, _, rest = url.partition("://")
    place, question, query = rest.partition("?")
    netloc = place.partition("/")[0]
    # libpq lets a parameter win over the path, so one that names the database has to go.
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] != "dbname")
    return f"{scheme}://{netloc}/{quote(name, safe='')}" + (f"{question}{kept}" if kept else "")


def sqlalchemy_url(url: str) -> SecretURL:
    """Return a `postgresql://` URL in the form by which SQLAlchemy finds psycopg 3."""
    return SecretURL(re.sub(r"^postgresql://", "postgresql+psycopg://", url))


def administrative_url(url: str) -> str:
    """Return a URL that a person gave as libpq reads it, or say what is wrong without showing the password.

    A password whose special characters were not percent-encoded moves the borders of the URL's parts, and pieces of it
    would turn up as the host, the port or the database: everything that looks so is refused here, unquoted.
    """
    scheme, separator, rest = url.partition("://")
    hint = "it reads postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / ? # % in the password percent-encoded"
    if not separator or scheme not in _SCHEMES:
        raise PostgresUnavailable(f"The URL given for PostgreSQL does not begin with postgresql://; {hint}.")
    plain = f"postgresql://{rest}"
    try:
        parts = urlsplit(plain)
        several = "," in parts.netloc.rpartition("@")[2]
        if not several:
            _ = parts.port
        psycopg.conninfo.conninfo_to_dict(plain)
    except (ValueError, psycopg.Error):
        raise PostgresUnavailable(f"The URL given for PostgreSQL is malformed; {hint}.") from None
    if parts.netloc.count("@") > 1 or "@" in parts.path + parts.query or parts.fragment:
        raise PostgresUnavailable(f"The URL given for PostgreSQL is malformed; {hint}.")
    if parts.path in ("", "/") and "dbname=" not in parts.query:
        plain = database_url(plain, ADMINISTRATIVE_DATABASE)
    return plain


def without_password(url: str) -> str:
    """Return the URL's host, port and database, for people to read."""
    known = psycopg.conninfo.conninfo_to_dict(url)
    host, port, name = known.get("host", "the local socket"), known.get("port", "5432"), known.get("dbname")
    return f"{host}:{port}/{name}"


def without_password_of(url: str, text: str) -> str:
    """Return the text without the password of this URL, plain or as a URL has it."""
    password = psycopg.conninfo.conninfo_to_dict(url).get("password")
    for form in (str(password), quote(str(password), safe="")) if password else ():
        text = text.replace(form, "***")
    return text


def server_version(url: str, *, timeout: int = 5) -> str:
    """Connect and ask the server's version, in the short form (`18.6`).

    Raises psycopg.Error where nothing answers within `timeout` seconds, or the URL says what cannot be understood.
    """
    # One that the URL names is taken from there, for whether it can be read is part of what is asked.
    if "connect_timeout" not in psycopg.conninfo.conninfo_to_dict(url):
        url = psycopg.conninfo.make_conninfo(url, connect_timeout=timeout)
    with psycopg.connect(url, autocommit=True) as connection:
        return short_version(connection.info.parameter_status("server_version") or "")


def short_version(text: str) -> str:
    """Find the version in what a program or server says of itself (`postgres (PostgreSQL) 18.6 (Debian ...)`)."""
    found = re.search(r"\d+(?:\.\d+)?(?:(?:beta|rc)\d+)?", text)
    return found.group() if found else "of unknown version"
