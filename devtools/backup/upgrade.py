"""Bring the data of an older PostgreSQL to the version that is used now: `nox -s db_upgrade`.

They are in Compose's volume, or in `.dev/postgres-N` of the embedded server. An old server is run on them and a new one
on new data next to them, which get their name by one rename at the very end. The old data are kept until `--drop-old`.
"""

import argparse
import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backend.config import ROOT
from backend.errors import UserError
from backend.scripts.terminal import say
from devtools.children import sigterm_as_ctrl_c
from devtools.terminal import enter

from . import upgrade_directory, upgrade_volume
from .tools import docker_says


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="db_upgrade",
        description="Bring all databases and roles of Compose's volume, and of the embedded server's .dev/postgres-N, "
        "to the version of PostgreSQL that is used now. The old data are kept; only template1 does not come along.",
    )
    parser.add_argument(
        "--drop-old", action="store_true", help="drop the old data of an upgrade that is done"
    )
    options = parser.parse_args(arguments)
    with sigterm_as_ctrl_c(), alone():
        # Both, whatever the first one found.
        done = [place.upgrade(drop_old=options.drop_old) for place in (upgrade_volume, upgrade_directory)]
    if docker_says("version") is None:
        say("Docker does not answer, so Compose's volume was not looked at.")
    if not any(done):
        say(
            f"Nothing to {'drop' if options.drop_old else 'upgrade'}: there are no data of an older PostgreSQL."
        )


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
