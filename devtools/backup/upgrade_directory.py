"""The embedded server's data in `.dev/postgres-N`: the new ones are made in a directory next to the old."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from backend.errors import UserError
from backend.scripts.terminal import say
from devtools import database
from freshpg import (
    PostgresUnavailable,
    find_binaries_of,
    find_clients,
    running,
    sqlalchemy_url,
    start_persistent,
)

from . import cluster
from .tools import Tools, docker_says
from .upgrade_volume import MAKING, MARK


def upgrade(*, drop_old: bool) -> bool:
    """Upgrade the directory, or drop the old ones; return whether there was something to do or to say."""
    target = database.DIRECTORY
    major = int(target.name.rpartition("-")[2])
    found = {path: re.fullmatch(r"postgres-(\d+)", path.name) for path in target.parent.glob("postgres-*")}
    old = {int(name[1]): path for path, name in found.items() if name and int(name[1]) < major}
    if not old:
        return False
    source, new = old[max(old)], os.path.relpath(target)
    is_upgraded = (target / MARK).exists()
    if drop_old and not is_upgraded:
        raise UserError(f"{new} was not upgraded yet: run `nox -s db_upgrade` first. Nothing was dropped.")
    if drop_old:
        for path in old.values():
            refuse_running(path)
            remove(path)
            say(f"Dropped {os.path.relpath(path)}.")
    elif is_upgraded:
        say(f"{new} is upgraded already. `nox -s db_upgrade -- --drop-old` drops {os.path.relpath(source)}.")
    elif target.exists():
        raise UserError(
            f"{new} is there already, and was not made from {os.path.relpath(source)}. Nothing was changed.\n"
            f"If you do not need what is in it, move it away and try again: `mv {new} {new}-away`."
        )
    else:
        refuse_running(source)
        say(f"{os.path.relpath(source)}: from PostgreSQL {max(old)} to {major}.")
        make(source, max(old), target)
        say(
            f"{new} is upgraded. {os.path.relpath(source)} is kept; `nox -s db_upgrade -- --drop-old` drops it."
        )
    return True


def refuse_running(directory: Path) -> None:
    if running(directory) is not None:
        raise UserError(f"{os.path.relpath(directory)} is in use: end the command that runs it.")


def make(source: Path, major: int, target: Path) -> None:
    """Make the new directory from the old. The last rename is what makes it count."""
    making = target.with_name(f"{target.name}{MAKING}")
    remove(making)
    try:
        with old_server(source, major) as old, start_persistent(making) as server:
            new = cluster.Server(make_url(sqlalchemy_url(server.url)), programs(server.version))
            cluster.copy(old, new)
        (making / MARK).write_text(f"{major}\n", encoding="utf-8")
        os.sync()
        making.rename(target)
    except BaseException:
        remove(making)
        raise


@contextmanager
def old_server(source: Path, major: int) -> Iterator[cluster.Server]:
    """Run the old server: with programs of its version on this machine, else in a container."""
    binaries, image = find_binaries_of(major), f"postgres:{major}"
    if binaries is not None:
        with start_persistent(source, binaries) as server:
            yield cluster.Server(make_url(sqlalchemy_url(server.url)), programs(server.version))
    elif docker_says("version") is None:
        raise UserError(
            f"{os.path.relpath(source)} needs the programs of PostgreSQL {major}, which are not on this machine.\n"
            f"Install them, or start Docker, which has {image}. Nothing was changed."
        )
    else:
        data = (source / "data").resolve()
        cluster.remove_leftovers(str(data))
        owner = f"{data.stat().st_uid}:{data.stat().st_gid}"
        with cluster.old_server(image, str(data), ".", "postgres", of=str(data), account=owner) as server:
            yield server


def programs(version: str) -> Tools:
    directory = find_clients(int(version.partition(".")[0]))
    if directory is None:
        raise PostgresUnavailable(f"There is no pg_dump of PostgreSQL {version} on this machine.")
    return Tools(lambda program: [str(directory / program)])


def remove(directory: Path) -> None:
    """Remove a directory, and its data if they had to be elsewhere."""
    data = (directory / "data").resolve()
    if data.exists() and not data.is_relative_to(directory.resolve()):
        shutil.rmtree(data)
    shutil.rmtree(directory, ignore_errors=not directory.exists())
