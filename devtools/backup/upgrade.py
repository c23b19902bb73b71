"""Bring data of an older PostgreSQL to the version that is used now: `nox -s db_upgrade`.

They are Compose's, in its volume, or the embedded server's, in `.dev/postgres-N`. Nothing of them is changed: the new
data are made beside them, and take their place at the very end.
"""

import argparse
import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backend.errors import UserError
from backend.scripts.terminal import say

from . import archive, directory, docker, volume
from .talk import enter


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    with alone():
        places = (volume.upgrade, directory.upgrade)
        try:
            # Both, whatever the first one found.
            did = [upgrade(drop_old=options.drop_old, anew=options.anew) for upgrade in places]
        except KeyboardInterrupt:
            say("Interrupted. What was not dropped is as it was; the same command finishes.")
            raise
    if docker.ask("version") is None:
        say("Docker does not answer, so Compose's volume was not looked at.")
    if not any(did):
        what = "drop" if options.drop_old else "upgrade"
        say(f"Nothing to {what}: no data of an older PostgreSQL were found.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="db_upgrade",
        description="Bring all databases and roles of Compose's volume, and of the embedded server in .dev/, from an "
        "older major version of PostgreSQL to the one that is used now. The old data are kept.",
    )
    parser.add_argument(
        "--drop-old", action="store_true", help="drop the old data of an upgrade that is done"
    )
    parser.add_argument(
        "--anew",
        action="store_true",
        help="set data of the new version aside that were not made from the old",
    )
    return parser.parse_args(arguments)


@contextmanager
def alone() -> Iterator[None]:
    """Let one upgrade of this checkout run at a time. Raises UserError where another does."""
    archive.DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    with (archive.DIRECTORY / ".upgrade.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError("Another db_upgrade is at work. Wait until it is done.") from error
        yield


if __name__ == "__main__":
    enter(main)
