"""The seed with a project's template database in it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psycopg

from . import cache
from .binaries import find_binaries
from .embedded import initdb_command, start_kept
from .identity import preferred_identity
from .seeds import SEEDED_TEMPLATE, seeds_for, template_seed
from .server import database_url, without_password_of

if TYPE_CHECKING:
    from collections.abc import Callable


def make_template_seed(template: str, prepare: Callable[[str], None], *, image: str | None = None) -> None:
    """Have `prepare` make the template database on a server of its own, and cache what that leaves.

    That server is a container, where the run's own is one of this image. The run's own will not do: by now its tests
    may have left a role or a setting on it. What goes wrong here costs the next run the time that a seed saves, and
    this one a line on stderr.
    """

    def fill(url: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            # Copied and not logged, where that can be asked for, or the seed would hold it twice.
            how = "strategy file_copy" if connection.info.server_version >= 150000 else ""  # noqa: PLR2004
            connection.execute(f"create database {SEEDED_TEMPLATE} template template0 {how}")
            _prepare(prepare, database_url(url, SEEDED_TEMPLATE))
            connection.execute(f"alter database {SEEDED_TEMPLATE} allow_connections false")

    try:
        if image is None:
            _make_directory(template, fill)
        else:
            from .container_start import make_template_image  # noqa: PLC0415  docker takes 150 ms

            make_template_image(image, template, fill)
    except Exception as error:  # noqa: BLE001 (whatever the project's own code raises: this run has its template)
        told = str(error) if isinstance(error, _Failed) else f"{type(error).__name__}: {error}"
        print(f"The template is not kept for later runs: {' '.join(told.split())}", file=sys.stderr)  # noqa: T201  for a person


class _Failed(Exception):  # noqa: N818 (it says what is so)
    """What the project's own code said, without a password."""


def _prepare(prepare: Callable[[str], None], url: str) -> None:
    try:
        prepare(url)
    except Exception as error:
        raise _Failed(without_password_of(url, f"{type(error).__name__}: {error}")) from error


def _make_directory(template: str, fill: Callable[[str], None]) -> None:
    binaries, identity = find_binaries(), preferred_identity()
    bare = seeds_for(binaries.version, initdb_command(binaries, ephemeral=True), None).store
    if bare is None:
        return
    server, keeper = start_kept(binaries, identity, None, new_seed=template_seed(bare, template))
    whole = False
    try:
        fill(server.url)
        whole = True
    finally:
        keeper.stop(seed=whole)
    cache.prune()
