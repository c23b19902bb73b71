"""The URL of a database, read and built by libpq's rules."""

import re
from urllib.parse import parse_qsl

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo
from sqlalchemy.engine import URL

URL_SHAPE = (
    "postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME, with @ : / % # ? in the password percent-encoded"
)

LARGEST_PORT = 65535


def parse_url(text: str) -> URL:
    """Read a database URL by libpq's rules, for psycopg. Raises ValueError, which never quotes the text.

    The rules: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS. libpq allows
    several hosts, and accepts user, password and database as query parameters.
    """
    scheme, _, rest = text.strip().partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError(f"is not a PostgreSQL URL for psycopg; it must look like {URL_SHAPE}")
    # An unencoded @ or / in the password moves part of it into the host or the name, where messages would show it.
    parts = re.fullmatch(r"([^@/]*@)?([^@?]*)(\?.*)?", rest)
    if parts is None:
        raise ValueError(f"is not a complete URL; it must look like {URL_SHAPE}")
    credentials, place, query = parts.groups(default="")
    # SQLAlchemy writes a space as + in a parameter, and as it is elsewhere.
    plain = f"postgresql://{credentials}{place}{query.replace('+', '%20')}".replace(" ", "%20")
    try:
        parameters = conninfo_to_dict(plain)
    except (ProgrammingError, ValueError):
        known = {option.keyword.decode() for option in Conninfo.get_defaults()}
        for name, _ in parse_qsl(query.removeprefix("?")):
            if name.isidentifier() and name not in known:
                raise ValueError(f"has a parameter that libpq does not know ({name})") from None
        raise ValueError(f"is not a valid URL; it must look like {URL_SHAPE}") from None
    if not parameters.get("dbname"):  # commands and messages need it, even if a service has one
        raise ValueError(f"has no database name; it must look like {URL_SHAPE}")
    return url_of({name: str(value) for name, value in parameters.items()})


def url_of(parameters: dict[str, str]) -> URL:
    """Build a URL from libpq's parameters. Raises ValueError if a port is invalid."""
    query = dict(parameters)
    user, password, name = (query.pop(key, None) for key in ("user", "password", "dbname"))
    hosts, ports = (query.pop(key, "").split(",") for key in ("host", "port"))
    if not all(port == "" or (port.isdecimal() and 1 <= int(port) <= LARGEST_PORT) for port in ports):
        raise ValueError(f"has an invalid port; it must look like {URL_SHAPE}")
    if len(ports) not in {1, len(hosts)}:
        raise ValueError("has several ports, but not one for each host")
    host, port = hosts[0] or None, int(ports[0] or 0) or None
    if len(hosts) > 1:
        ports = ports * len(hosts) if len(ports) == 1 else ports
        query |= {"host": ",".join(hosts), "port": ",".join(each or "5432" for each in ports)}
        host = port = None
    elif host is not None and host.startswith(("/", "@")):
        # A socket directory does not survive a round trip through the host part of a URL.
        query["host"], host = host, None
    return URL.create("postgresql+psycopg", user, password, host, port, name, query)


def libpq_parameters(url: URL) -> dict[str, str]:
    """Return libpq's parameters for this URL; psycopg's `make_conninfo` turns them into a connection string."""
    _, parameters = url.get_dialect()().create_connect_args(url)
    return {name: str(value) for name, value in parameters.items()}
