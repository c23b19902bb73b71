"""The embedded server's data in `.dev/`: those of an older PostgreSQL lie beside, in a directory of its version."""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import make_url

from backend.errors import UserError
from backend.scripts.terminal import say
from devtools import database
from freshpg import (
    PostgresUnavailable,
    Server,
    find_binaries,
    find_binaries_of,
    find_clients,
    running,
    sqlalchemy_url,
    start_persistent,
)

from . import docker
from .archive import stamp
from .carry import carry
from .containers import Side, old_server, remove_leftovers
from .tools import Tools
from .volume import MARK

_MAKING, _ASIDE = ".making-", ".aside-"
_PATIENCE_SECONDS, _PAUSE = 5.0, 0.1


def upgrade(*, drop_old: bool, anew: bool) -> bool:
    """Upgrade the directory's data if they are old; return whether there was anything to do or to say."""
    target = database.DIRECTORY
    major = int(target.name.rpartition("-")[2])
    old = older(target, major)
    made_from = _text(target / MARK)
    if drop_old:
        return drop(target, made_from, [*old.values(), *target.parent.glob(f"{target.name}{_ASIDE}*")])
    if not old:
        return False
    source = old[max(old)]
    if made_from:
        say(f"{_shown(target)}: PostgreSQL {major} already, made from {made_from}'s data, which are kept.")
        return True
    if target.exists() and not anew:
        raise UserError(
            f"{_shown(target)} was not made from {_shown(source)}, and is the one in use. Nothing was changed.\n"
            "If it holds nothing that you need, as after a first start: `nox -s db_upgrade -- --anew` sets it aside, "
            f"and brings {_shown(source)} along."
        )
    for each in (source, target):
        if each.exists() and not _is_free(each):
            raise UserError(f"{_shown(each)} is in use: end the command that runs it. Nothing was changed.")
    if find_binaries().major != major:
        raise UserError(
            f"{_shown(target)} wants PostgreSQL {major}, and the programs here are {find_binaries().version}. "
            "Nothing was changed.\n`nox -s venv` installs those of the lock."
        )
    say(f"{_shown(source)}: from PostgreSQL {max(old)} to {major}.")
    bring_along(source, max(old), target)
    say(
        f"{_shown(target)}: PostgreSQL {major}. {_shown(source)} is kept: `nox -s db_upgrade -- --drop-old` drops it."
    )
    return True


def older(target: Path, major: int) -> dict[int, Path]:
    """Find the directories of older versions, by their version."""
    found = {}
    for path in target.parent.glob("postgres-*"):
        name = re.fullmatch(r"postgres-(\d+)", path.name)
        if name is not None and int(name[1]) < major and (path / "data").exists():
            found[int(name[1])] = path
    return found


def bring_along(source: Path, major: int, target: Path) -> None:
    """Make the new directory from the old one. It is there when it gets its name, and not before."""
    for leftover in target.parent.glob(f"{target.name}{_MAKING}*"):
        remove(leftover)
    # A name of its own each time: where data had to be elsewhere, that is by the directory's name.
    making = target.with_name(f"{target.name}{_MAKING}{secrets.token_hex(4)}")
    try:
        with old_side(source, major) as old, start_persistent(making) as server:
            carry(old, _side(server, int(server.version.partition(".")[0])))
        (making / MARK).write_text(str(major), encoding="utf-8")
        os.sync()
        if target.exists():
            target.rename(target.with_name(f"{target.name}{_ASIDE}{stamp(datetime.now(UTC))}"))
        making.rename(target)
    except BaseException:
        with suppress(OSError):
            remove(making)
        raise


@contextmanager
def old_side(source: Path, major: int) -> Iterator[Side]:
    """Lend the old server: by programs of its version on this machine, else in a container, on a copy of its data."""
    binaries = find_binaries_of(major)
    if binaries is not None:
        with start_persistent(source, binaries) as server:
            yield _side(server, major)
        return
    image = f"postgres:{major}"
    if docker.ask("version") is None:
        raise UserError(
            f"{_shown(source)} needs the programs of PostgreSQL {major}, which are not on this machine. "
            f"Nothing was changed.\nInstall your system's PostgreSQL {major}, or start Docker, which has {image}."
        )
    data = (source / "data").resolve()
    remove_leftovers(str(data))
    with old_server(image, str(data), ".", beside="", of=str(data)) as side:
        yield side


def drop(target: Path, made_from: str, others: list[Path]) -> bool:
    if not others:
        return False
    if not made_from:
        raise UserError(
            f"{_shown(others[0])} is kept, for {_shown(target)} was not made from it. Nothing was dropped.\n"
            "Run `nox -s db_upgrade` first."
        )
    for other in others:
        if running(other) is not None:
            raise UserError(f"{_shown(other)} is in use: end the command that runs it.")
        remove(other)
        say(f"Dropped {_shown(other)}.")
    return True


def remove(directory: Path) -> None:
    """Remove a directory of a server's, and its data where they had to be elsewhere."""
    data = (directory / "data").resolve()
    if not data.is_relative_to(directory.resolve()):
        # What start_persistent puts elsewhere has a directory of its own there; what a person does, may not.
        is_ours = data.parent.parent.name == "embedded-postgres"
        shutil.rmtree(data.parent if is_ours else data, ignore_errors=True)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            shutil.rmtree(directory)
        except OSError:
            # The server of a run that was killed may be on its way out.
            if time.monotonic() > deadline:
                raise
            # Nothing tells when another process has let go of its files.
            time.sleep(_PAUSE)
        else:
            return


def _is_free(directory: Path) -> bool:
    """Whether nobody runs the directory's server, or it goes while it is waited for, as that of a killed run does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while running(directory) is not None:
        if time.monotonic() > deadline:
            return False
        # It is no child of ours, whose end could be waited for.
        time.sleep(_PAUSE)
    return True


def _side(server: Server, major: int) -> Side:
    programs = find_clients(major)
    if programs is None:
        raise PostgresUnavailable(f"No pg_dump of PostgreSQL {major} is on this machine: install its client.")
    tools = Tools(f"in {programs}", lambda program: [str(programs / program)])
    return Side(make_url(sqlalchemy_url(server.url)), tools)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _shown(path: Path) -> str:
    return os.path.relpath(path)
