"""Bring the data of an older PostgreSQL to the version that is used now: `nox -s db_upgrade`.

They are in Compose's volume, or in `.dev/postgres-N` of the embedded server. All databases and roles are dumped from
the old data and restored into new data next to them, which get their place by one rename at the very end.
"""

import argparse
import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backend.config import ROOT
from backend.errors import UserError
from backend.scripts.terminal import say
from devtools.terminal import enter, sigterm_as_ctrl_c

from . import upgrade_directory, upgrade_volume
from .tools import docker_says
from .upgrade_place import Place


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="db_upgrade",
        description="Bring all databases and roles of Compose's volume, and of the embedded server's .dev/postgres-N, "
        "to the version of PostgreSQL that is used now. The old data are kept. What was added to template1 is not "
        "brought along.",
    )
    parser.add_argument(
        "--drop-old", action="store_true", help="drop the old data of an upgrade that is done"
    )
    options = parser.parse_args(arguments)
    with sigterm_as_ctrl_c(), alone():
        places = [place for place in (upgrade_volume.find(), upgrade_directory.find()) if place and place.old]
        for place in places:
            drop(place) if options.drop_old else upgrade(place)
    if docker_says("version") is None:
        say("Docker does not answer, so Compose's volume was not looked at.")
    if not places:
        say(
            f"Nothing to {'drop' if options.drop_old else 'upgrade'}: there are no data of an older PostgreSQL."
        )


def upgrade(place: Place) -> None:
    source = max(place.old)
    if place.is_upgraded:
        say(
            f"{place.name} is upgraded already. `nox -s db_upgrade -- --drop-old` drops the old data ({source})."
        )
        return
    if place.has_new:
        raise UserError(
            f"{place.name} holds data of PostgreSQL {place.major} that were not made from those of {source}. Nothing "
            f"was changed.\nIf you do not need the newer ones, move them away and try again: `{place.move_away}`."
        )
    say(f"{place.name}: from PostgreSQL {source} to {place.major}.")
    place.make(source)
    say(f"{place.name} is upgraded. The old data are kept; `nox -s db_upgrade -- --drop-old` drops them.")


def drop(place: Place) -> None:
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
    with (ROOT / "compose.yaml").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("Another db_upgrade is running. Wait for its end.") from None
        yield


if __name__ == "__main__":
    enter(main)
