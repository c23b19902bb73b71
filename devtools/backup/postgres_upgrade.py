"""Upgrade all databases and roles in Compose's volume and in the embedded server's .dev/postgres-N to this PostgreSQL.

They are copied from the old server to a new one. The new data are made next to the old data, and renamed at the very
end. The old data are kept.
"""

import argparse
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from backend.errors import UserError
from backend.scripts.console import say
from devtools import database
from devtools.backup.client_programs import Tools, copy_server
from devtools.backup.volume_upgrade import ENDING_SECONDS, MARK, Volume, find_volume
from devtools.command_line import enter
from freshpg import (
    Binaries,
    find_binaries,
    find_binaries_of,
    running,
    start_persistent,
    without_libpq_variables,
)


class Directory:
    """The embedded server's data in `.dev/postgres-N`; the new data are made in a directory next to the old one."""

    def __init__(self, target: Path, source: Path) -> None:
        self.target, self.source = target, source
        self.name = self.new = os.path.relpath(target)
        self.major, self.old = (int(path.name.rpartition("-")[2]) for path in (target, source))
        self.has_new = target.exists()
        mark = target / MARK
        self.is_upgraded = mark.exists() and mark.read_text(encoding="utf-8").strip() == str(self.old)

    def make(self) -> None:
        making = self.target.with_name(f"{self.target.name}.making")
        old_programs, new_programs = find_binaries_of(self.old), find_binaries()
        if old_programs is None:
            raise UserError(
                f"{os.path.relpath(self.source)} needs the programs of PostgreSQL {self.old}, which are not on this "
                f"machine. Nothing was changed.\nInstall your system's PostgreSQL {self.old}, or put it on PATH."
            )
        self.refuse_running()
        if in_use(making):
            raise UserError(
                f"An upgrade that was ended still uses {os.path.relpath(making)}. Try again in a minute."
            )
        remove(making)
        with (
            start_persistent(self.source, old_programs) as old,
            start_persistent(making, new_programs) as new,
        ):
            copy_server(tools(old_programs), make_url(old.url), tools(new_programs), make_url(new.url))
        (making / MARK).write_text(f"{self.old}\n", encoding="utf-8")
        os.sync()
        making.rename(self.target)

    def drop(self) -> None:
        self.refuse_running()
        remove(self.source)

    def refuse_running(self) -> None:
        if in_use(self.source):
            raise UserError(
                f"{os.path.relpath(self.source)} is in use: end the command that runs its server."
            )


def in_use(directory: Path) -> bool:
    """Tell whether a server runs in this directory, after waiting for the server of a killed command to end."""
    deadline = time.monotonic() + ENDING_SECONDS
    while (is_running := running(directory) is not None) and time.monotonic() < deadline:
        time.sleep(0.1)  # polled, because flock() has no timeout
    return is_running


def tools(binaries: Binaries) -> Tools:
    return Tools(lambda program: [binaries.program(program)])


def remove(directory: Path) -> None:
    """Remove a directory, and its data if a link leads to them."""
    data = (directory / "data").resolve()
    if data.exists() and not data.is_relative_to(directory.resolve()):
        shutil.rmtree(data)
    shutil.rmtree(directory, ignore_errors=not directory.exists())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="nox -s db_upgrade --", description=__doc__)
    parser.add_argument("--drop-old", action="store_true", help="drop the old data of a finished upgrade")
    options = parser.parse_args(arguments)
    with upgrade_lock(), without_libpq_variables():
        source = database.older_data()
        places = [find_volume(), Directory(database.DIRECTORY, source) if source else None]
        found = [place for place in places if place is not None]
        for place in found:
            drop(place) if options.drop_old else upgrade(place)
    if not found:
        say("No data of an older PostgreSQL were found.")


def upgrade(place: Volume | Directory) -> None:
    old = f"`nox -s db_upgrade -- --drop-old` drops the data of PostgreSQL {place.old}."
    if place.is_upgraded:
        say(f"{place.name} is already upgraded. {old}")
        return
    refuse_other_data(place)
    say(f"{place.name}: from PostgreSQL {place.old} to {place.major}.")
    place.make()
    say(f"{place.name} is upgraded. The old data are kept; {old}")


def drop(place: Volume | Directory) -> None:
    if not place.is_upgraded:
        refuse_other_data(place)
        raise UserError(
            f"{place.name} is not upgraded yet: run `nox -s db_upgrade` first. Nothing was changed."
        )
    place.drop()
    say(f"{place.name}: dropped the data of PostgreSQL {place.old}.")


def refuse_other_data(place: Volume | Directory) -> None:
    """Raise UserError if there are newer data that were not made from the old ones."""
    if place.has_new:
        raise UserError(
            f"{place.name} holds data of PostgreSQL {place.major} that `db_upgrade` did not copy from {place.old}. "
            f"Nothing was changed.\nIf you do not need the newer data, rename {place.new} and upgrade again."
        )


@contextmanager
def upgrade_lock() -> Iterator[None]:
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
