"""Which server to use: one place that decides, and says why in one line."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict

from .binaries import find_binaries
from .docker_client import pull_images
from .embedded import start_ephemeral
from .libpq import connect, connected_version, database_url, last_line, place_of, short_version
from .run_as import preferred_user
from .server import ADMINISTRATIVE_DATABASE, Kind, PostgresUnavailable, Server

DEFAULT_IMAGE = "postgres:18"


@dataclass(frozen=True)
class Choice:
    """A server that was chosen and is not started yet."""

    kind: Kind
    announcement: str
    """One line for people: which server, of what version, and why this one."""
    start: Callable[[], Server] = field(repr=False)
    """Start the server, or take the one that was given; raise PostgresUnavailable if that fails."""


def choose(
    request: str = "auto",
    *,
    image: str = DEFAULT_IMAGE,
    named_by: str = "--postgres",
    to_create: bool = False,
    settings: Sequence[str] = (),
) -> Choice:
    """Decide which server to use, without starting one; raise PostgresUnavailable if there is none.

    `request` is `auto` (Docker, else programs on this machine), `docker`, `embedded`, or the URL of a running server.
    What is asked for by name is used or refused; nothing else is tried. A missing image is pulled, for at most
    $POSTGRES_PULL_SECONDS (120). `named_by` tells people where the request was made. `to_create` refuses a given server
    whose role may not create databases. `settings` are further server settings as `name=value`, the same for Docker and
    embedded.
    """
    seconds = _pull_seconds()
    if request in ("docker", "embedded"):
        asked = f"{named_by} {request}"
        why = f"as {asked} asks"
        try:
            if request == "docker":
                return _docker(image, seconds, settings, why)
            return _embedded(settings, why)
        except PostgresUnavailable as error:
            message = f"{asked} is not available: {error.reason}.\nCorrect that, or use auto."
            raise PostgresUnavailable(message) from None
    if request != "auto":
        return _given(_administrative_url(request, named_by), named_by, to_create=to_create)
    try:
        return _docker(image, seconds, settings, "because Docker answers")
    except PostgresUnavailable as no_docker:
        try:
            return _embedded(settings, f"because {no_docker.reason}")
        except PostgresUnavailable as no_embedded:
            raise PostgresUnavailable(
                "No PostgreSQL server available.\n"
                f"  Docker: {no_docker.reason}.\n"
                f"  Embedded: {no_embedded.reason}.\n"
                f"Correct one of these, or name a server with {named_by} URL."
            ) from None


def _pull_seconds() -> float:
    text = os.environ.get("POSTGRES_PULL_SECONDS") or "120"
    if not text.isdecimal():
        raise PostgresUnavailable(f"POSTGRES_PULL_SECONDS has to be a number of seconds, not {text!r}.")
    return float(text)


def _docker(image: str, pull_seconds: float, settings: Sequence[str], why: str) -> Choice:
    # Applied here, so that this image is looked for, and pulled within the deadline.
    image = os.environ.get("TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX", "") + image
    known = pull_images(image, pull_seconds)
    version = short_version(known.get("PG_VERSION") or known.get("PG_MAJOR") or image.rpartition(":")[2])

    def start() -> Server:
        # Importing docker and testcontainers takes longer than the whole start of an embedded server.
        from .container import start_container  # noqa: PLC0415 (slow)

        return start_container(image, version, settings)

    return Choice("docker", f"PostgreSQL {version}, in Docker ({image}), {why}", start)


def _embedded(settings: Sequence[str], why: str) -> Choice:
    found, run_as = find_binaries(), preferred_user()
    announcement = f"PostgreSQL {found.version}, embedded ({found.origin}), {why}"
    return Choice("embedded", announcement, lambda: start_ephemeral(found, run_as, settings=settings))


def _administrative_url(url: str, named_by: str) -> str:
    """Return a URL that a person gave in the form that libpq reads; raise PostgresUnavailable if it is malformed.

    If special characters in a password are not percent-encoded, parts of it appear as the host, the port or the
    database. Such a URL is refused, and no part of it is shown.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise PostgresUnavailable(
            f"{named_by} has to be auto, docker, embedded or a URL that begins with postgresql://."
        )
    plain = f"postgresql://{rest}"
    try:
        known = conninfo_to_dict(plain)
    except psycopg.Error:
        known = {"port": "malformed"}
    is_whole = re.fullmatch(r"([^@/?#]*@)?[^@/?#]*(/[^@/?#]*)?(\?[^@#]*)?", rest)
    if not is_whole or not re.fullmatch(r"[\d,]*", str(known.get("port", ""))):
        raise PostgresUnavailable(
            "The URL of the PostgreSQL server is malformed; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
            "with @ : / ? # % in the password percent-encoded."
        )
    return plain if "dbname" in known else database_url(plain, ADMINISTRATIVE_DATABASE)


def _given(url: str, named_by: str, *, to_create: bool) -> Choice:
    where = place_of(url)
    query = "select rolcreatedb or rolsuper, quote_ident(rolname) from pg_roles where rolname = current_user"
    try:
        with connect(url) as connection:
            version = connected_version(connection)
            may_create, role = connection.execute(query).fetchone() or (True, "")
    except psycopg.Error as error:
        message = f"The PostgreSQL server at {where} is not available: {last_line(error)}"
        raise PostgresUnavailable(message) from None
    if to_create and not may_create:
        raise PostgresUnavailable(
            f"On the PostgreSQL server at {where}, the role {role} may not create databases. "
            f"A superuser can allow it: ALTER ROLE {role} CREATEDB."
        )
    server = Server(url, version, "given")
    return Choice("given", f"PostgreSQL {version}, given ({where}), as {named_by} says", lambda: server)
