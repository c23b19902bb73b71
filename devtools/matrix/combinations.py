"""Which combinations there are, and whether this machine has what one needs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from freshpg import PostgresUnavailable, choose, find_binaries
from freshpg.engine import connect_to_engine

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
IMAGES = ("postgres:15", "postgres:17", "postgres:18")
DEFAULT_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Combination:
    """One PostgreSQL with one Python."""

    python: str
    """Its minor version, as `3.12`."""
    image: str | None = None
    """The container's image; the embedded server where there is none."""

    @property
    def server(self) -> str:
        if self.image is not None:
            return f"{self.image.rpartition(':')[2]} in Docker"
        return f"{embedded_version() or '18'} embedded"

    @property
    def name(self) -> str:
        return f"PostgreSQL {self.server}, Python {self.python}"

    @property
    def file_name(self) -> str:
        return f"{self.image.replace(':', '-') if self.image else 'embedded'}-python-{self.python}"

    @property
    def options(self) -> list[str]:
        """What tells pytest which server."""
        if self.image is None:
            return ["--postgres", "embedded"]
        return ["--postgres", "docker", "--postgres-image", self.image]


def combinations() -> list[Combination]:
    """List the matrix: the servers first, with the default Python, then the other Pythons."""
    others = (version for version in PYTHONS if version != DEFAULT_PYTHON)
    return [
        *(Combination(DEFAULT_PYTHON, image) for image in IMAGES),
        Combination(DEFAULT_PYTHON),
        *(Combination(version) for version in others),
    ]


def embedded_version() -> str | None:
    try:
        return find_binaries().version
    except PostgresUnavailable:
        return None


def missing(combination: Combination, *, look_only: bool = False) -> str | None:
    """Say in a few words what this machine lacks for the combination, or nothing if it lacks nothing.

    An image that is not there is pulled, unless this is only a look.
    """
    if find_python(combination.python) is None:
        return f"no Python {combination.python} on this machine"
    if look_only and combination.image is not None:
        return _missing_image(combination.image)
    try:
        if combination.image is None:
            choose("embedded")
        else:
            choose("docker", image=combination.image)
    except PostgresUnavailable as error:
        return _in_a_few_words(error)
    return None


def _missing_image(image: str) -> str | None:
    try:
        client = connect_to_engine()
    except PostgresUnavailable as error:
        return _in_a_few_words(error)
    from docker.errors import ImageNotFound  # type: ignore[import-untyped] # noqa: PLC0415 (a client exists, so it is loaded)

    try:
        client.images.get(os.environ.get("TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX", "") + image)
    except ImageNotFound:
        return f"the image {image} would be pulled"
    finally:
        client.close()
    return None


def _in_a_few_words(error: PostgresUnavailable) -> str:
    return str(error).splitlines()[0].rpartition("cannot be had: ")[2].rstrip(".")


def find_python(version: str) -> str | None:
    """Return the interpreter of this minor version that the machine has, by uv's rules or in pyenv's place.

    Nothing is downloaded.
    """
    if version == DEFAULT_PYTHON:
        return sys.executable
    # --system, or the environment that this runs in would be looked at first; uv warns of shims that lead nowhere.
    find = ("-m", "uv", "python", "find", "--no-python-downloads", "--no-project", "--system", version)
    found = _answer([sys.executable, *find])
    if found is not None and _answer([found, "-c", _VERSION]) == version:
        return found
    # A shim of pyenv's works only for the versions that somebody has switched on.
    versions = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    interpreters = sorted(versions.glob(f"{version}.*/bin/python{version}"), reverse=True)
    return next((str(path) for path in interpreters if _answer([str(path), "-c", _VERSION]) == version), None)


_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def _answer(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None
