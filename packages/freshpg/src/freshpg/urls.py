"""URLs of servers and databases: made, read, and shown without their passwords."""

import re
from urllib.parse import quote

import psycopg

from .server import ADMINISTRATIVE_DATABASE, SUPERUSER, PostgresUnavailable


class SecretURL(str):
    """A URL whose `repr` shows no password; pytest prints the `repr` of values in failing tests."""

    __slots__ = ()

    def __repr__(self) -> str:
        hidden = re.sub(r"(?<=password=)[^&]*", "***", self)
        return repr(re.sub(r"(?<=://)([^/?@]*?):[^/?]*@", r"\1:***@", hidden))


def local_url(port: int, password: str, *, host: str = "127.0.0.1") -> str:
    """Return the administrative URL of a server that listens on this port."""
    return f"postgresql://{SUPERUSER}:{quote(password, safe='')}@{host}:{port}/{ADMINISTRATIVE_DATABASE}"


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


def administrative_url(url: str) -> str:
    """Return a URL that a person gave in the form that libpq reads; raise PostgresUnavailable if it is malformed.

    If special characters in a password are not percent-encoded, parts of it appear as the host, the port or the
    database. Such a URL is refused, and no part of it is shown.
    """
    scheme, separator, rest = url.partition("://")
    hint = "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / ? # % in the password percent-encoded"
    if not separator or scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise PostgresUnavailable(
            f"The URL of the PostgreSQL server does not begin with postgresql://; {hint}."
        )
    plain = f"postgresql://{rest}"
    try:
        known = psycopg.conninfo.conninfo_to_dict(plain)
    except psycopg.Error:
        known = {"port": "malformed"}
    is_whole = re.fullmatch(r"([^@/?#]*@)?[^@/?#]*(/[^@/?#]*)?(\?[^@#]*)?", rest)
    if not is_whole or not re.fullmatch(r"[\d,]*", str(known.get("port", ""))):
        raise PostgresUnavailable(f"The URL of the PostgreSQL server is malformed; {hint}.")
    return plain if "dbname" in known else database_url(plain, ADMINISTRATIVE_DATABASE)


def place_of(url: str) -> str:
    """Return the URL's host, port and database, for people."""
    known = psycopg.conninfo.conninfo_to_dict(url)
    hosts = str(known.get("host", "the local socket")).split(",")
    ports = str(known.get("port", "")).split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = (f"{host}:{port or 5432}" for host, port in zip(hosts, ports, strict=False))
    return f"{','.join(places)}/{known.get('dbname')}"
