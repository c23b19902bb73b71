"""Upgrade the data of an older PostgreSQL to the current version: `nox -s db_upgrade`.

The data are in Compose's volume, or in `.dev/postgres-N` of the embedded server. All databases and roles are copied
from the old server to a new one. The new data are made next to the old data, and renamed at the very end.
"""

import argparse
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from backend.errors import UserError
from backend.scripts.terminal import say
from devtools import database
from devtools.command_line import enter, sigterm_as_ctrl_c
from freshpg import Server, find_binaries_of, find_clients, running, start_persistent

from .client_programs import Tools, copy_server, docker_says
from .upgrade_volume import MARK, Volume, find_volume


class Directory:
    """The embedded server's data in `.dev/postgres-N`; the new data are made in a directory next to the old one."""

    def __init__(self, target: Path) -> None:
        self.target, self.name = target, os.path.relpath(target)
        self.major = int(target.name.rpartition("-")[2])
        names = {
            path: re.fullmatch(r"postgres-(\d+)", path.name) for path in target.parent.glob("postgres-*")
        }
        found = {int(name[1]): path for path, name in names.items() if name}
        self.old = {major: path for major, path in found.items() if major < self.major}
        # Records whether there are new data, and whether an upgrade made them.
        self.has_new, self.is_upgraded = target.exists(), (target / MARK).exists()
        self.move_away = f"mv {self.name} {self.name}-away"

    def make(self, major: int) -> None:
        source, making = self.old[major], self.target.with_name(f"{self.target.name}.making")
        binaries = find_binaries_of(major)
        if binaries is None:
            raise UserError(
                f"{os.path.relpath(source)} needs the programs of PostgreSQL {major}, which are not on this machine. "
                f"Nothing was changed.\nInstall your system's PostgreSQL {major}, or put it on PATH."
            )
        refuse_running(source)
        remove(making)
        try:
            with start_persistent(source, binaries) as old, start_persistent(making) as new:
                copy_server(tools(old), make_url(old.url), tools(new), make_url(new.url))
            (making / MARK).write_text(f"{major}\n", encoding="utf-8")
            os.sync()
            making.rename(self.target)
        except BaseException:
            remove(making)
            raise

    def drop(self, major: int) -> None:
        refuse_running(self.old[major])
        remove(self.old[major])


def tools(server: Server) -> Tools:
    programs = find_clients(int(server.version.partition(".")[0]))
    return Tools(lambda program: [f"{programs}/{program}"])


def refuse_running(directory: Path) -> None:
    if running(directory) is not None:
        raise UserError(f"{os.path.relpath(directory)} is in use: end the command that runs its server.")


def remove(directory: Path) -> None:
    """Remove a directory, and its data if they are in another place."""
    data = (directory / "data").resolve()
    if data.exists() and not data.is_relative_to(directory.resolve()):
        shutil.rmtree(data)
    shutil.rmtree(directory, ignore_errors=not directory.exists())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="db_upgrade",
        description="Upgrade all databases and roles in Compose's volume and in the embedded server's .dev/postgres-N "
        "to the current version of PostgreSQL. The old data are kept.",
    )
    parser.add_argument("--drop-old", action="store_true", help="drop the old data of a finished upgrade")
    options = parser.parse_args(arguments)
    with sigterm_as_ctrl_c(), alone():
        places = [place for place in (find_volume(), Directory(database.DIRECTORY)) if place and place.old]
        for place in places:
            drop(place) if options.drop_old else upgrade(place)
    if docker_says("version") is None:
        say("Docker does not answer, so Compose's volume was not checked.")
    if not places:
        say(
            f"Nothing to {'drop' if options.drop_old else 'upgrade'}: there are no data of an older PostgreSQL."
        )


def upgrade(place: Volume | Directory) -> None:
    source = max(place.old)
    if place.is_upgraded:
        say(
            f"{place.name} is already upgraded. `nox -s db_upgrade -- --drop-old` drops the old data ({source})."
        )
        return
    if place.has_new:
        raise UserError(
            f"{place.name} holds data of PostgreSQL {place.major} that were not made from those of {source}. Nothing "
            f"was changed.\nIf you do not need the newer data, move them away and try again: `{place.move_away}`."
        )
    say(f"{place.name}: from PostgreSQL {source} to {place.major}.")
    place.make(source)
    say(f"{place.name} is upgraded. The old data are kept; `nox -s db_upgrade -- --drop-old` drops them.")


def drop(place: Volume | Directory) -> None:
    if not place.is_upgraded:
        raise UserError(
            f"{place.name} is not upgraded yet: run `nox -s db_upgrade` first. Nothing was dropped."
        )
    for major in place.old:
        place.drop(major)
        say(f"{place.name}: dropped the data of PostgreSQL {major}.")


@contextmanager
def alone() -> Iterator[None]:
    """Let one upgrade of this checkout run at a time. Raises UserError."""
    checkout = os.open(database.DIRECTORY.parents[1], os.O_RDONLY)
    try:
        try:
            fcntl.flock(checkout, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("Another db_upgrade is running. Wait until it has finished.") from None
        yield
    finally:
        os.close(checkout)


if __name__ == "__main__":
    enter(main)
