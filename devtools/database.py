"""Which database `dev` and the db verbs work on, by a ladder that is announced in one line; and the db verbs.

First that holds: the one configured (DATABASE_URL, or POSTGRES_HOST or POSTGRES_PORT); Compose's `db` if it answers on
DB_PORT; the embedded one in `.dev/postgres-18/`, started if need be. `dev` makes that one where there is none; the db
verbs go on to an ephemeral server, on which they show what they would do.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

import freshpg
from backend.config import ROOT, Settings, load_settings
from backend.database import connect
from backend.startup import asked_for_password, can_connect, describe
from devtools.terminal import enter
from freshpg.run import supervise, tell

DIRECTORY = ROOT / ".dev" / "postgres-18"

VERBS = {
    "init": ["backend.scripts.init_db"],
    "reset": ["backend.scripts.reset_db"],
    "seed": ["devtools.seed"],
    "shell": ["devtools.psql"],
    "utc": ["devtools.utc_check"],
    "backup": ["devtools.backup.dump"],
    "restore": ["devtools.backup.restore"],
}


@dataclass(frozen=True)
class Found:
    """The database that the ladder found: its URL, and whether it lives only as long as the command."""

    url: str
    is_ephemeral: bool = False


@contextmanager
def find(settings: Settings, *, make: bool = False, ephemeral: bool = False) -> Iterator[Found]:
    """Lend the database that the ladder finds, announced on standard error; what was started for it is stopped."""
    with nullcontext() if ephemeral else find_own(settings, make=make) as own:
        if own is not None:
            yield own
            return
    choice = freshpg.choose("auto")
    why = "asked for" if ephemeral else f"for none is configured, none answers on DB_PORT {settings.db_port}"
    why += "" if ephemeral else f" and there is none in {os.path.relpath(DIRECTORY)}"
    tell(f"Database: an ephemeral one, {why}. Nothing of yours is changed. {choice.announcement}.")
    with choice.start() as server:
        yield Found(freshpg.ensure_database(server.url, settings.postgres_db), is_ephemeral=True)


@contextmanager
def find_own(settings: Settings, *, make: bool = False) -> Iterator[Found | None]:
    """Lend the developer's own database, or None where there is none and none is to be made."""
    if (why := named(settings)) is not None:
        tell(f"Database: {describe(settings.url)}, {why}.")
        yield Found(settings.url.render_as_string(hide_password=False))
    elif make or DIRECTORY.exists():
        if old := [] if DIRECTORY.exists() else sorted(DIRECTORY.parent.glob("postgres-[0-9][0-9]")):
            tell(
                f"{os.path.relpath(old[-1])} holds an older PostgreSQL's data: `nox -s db_upgrade` brings them along."
            )
        lent = ", run by another command and gone when that ends" if freshpg.running(DIRECTORY) else ""
        with freshpg.start_persistent(DIRECTORY) as server:
            place = os.path.relpath(DIRECTORY)
            tell(f"Database: {settings.postgres_db} in {place}, PostgreSQL {server.version}, embedded{lent}.")
            for note in server.notes:
                tell(note)
            yield Found(freshpg.ensure_database(server.url, settings.postgres_db))
    else:
        yield None


def named(settings: Settings) -> str | None:
    """Say why the database that the settings name is the one to take, or None where it is not."""
    if settings.is_database_configured:
        return "the one configured"
    return f"Compose's, which answers on DB_PORT {settings.db_port}" if answers(settings.url) else None


def answers(url: URL) -> bool:
    """Whether a PostgreSQL server answers there, even if it refuses our password or lacks our database."""
    engine = connect(url, pool_pre_ping=False)
    try:
        with engine.connect():
            return True
    except OperationalError as error:
        return asked_for_password(error) or can_connect(url.set(database="postgres"))
    finally:
        engine.dispose()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m devtools.database",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, help="what to do on the database that is found")
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, help="--ephemeral, and what the verb itself takes (VERB --help)"
    )
    options = parser.parse_args(arguments)
    rest = [argument for argument in options.rest if argument != "--ephemeral"]
    if "--help" in rest:
        code = run([*VERBS[options.verb], "--help"], {})
        tell("And --ephemeral, to do it on a server that lives only as long as the command.")
        return code
    settings = load_settings()
    with find(settings, ephemeral=len(rest) < len(options.rest)) as found:
        if found.is_ephemeral:
            return show(options.verb, rest, found, settings)
        return run([*VERBS[options.verb], *rest], {"DATABASE_URL": found.url})


def show(verb: str, rest: list[str], found: Found, settings: Settings) -> int:
    """Do on an ephemeral server what leads to the verb, and the verb: for init and reset, both of them."""
    environment = {"DATABASE_URL": found.url, "APP_ENV": "test"}
    with tempfile.TemporaryDirectory() as place:
        for command in steps(verb, rest, settings.postgres_db, f"{place}/backup.dump"):
            if code := run(command, environment):
                return code
    tell("It worked on the ephemeral server, which is gone again. Nothing of yours was changed.")
    return 0


def steps(verb: str, rest: list[str], name: str, file: str) -> list[list[str]]:
    """Return the commands that show a verb on an empty server; a backup made on the way is this file."""
    # By name, for a container's host is not always this machine's.
    reset, restore = ([*VERBS[each], "--yes-drop", name] for each in ("reset", "restore"))
    init = VERBS["init"]
    names_file = any(not word.startswith("-") for word in rest)
    shown: dict[str, list[list[str]]] = {
        "init": [[*init, *rest], reset],
        "reset": [init, [*reset, *rest]],
        "seed": [init, [*VERBS["seed"], "--yes-seed", name, *rest]],
        # The database is gone with the server, so its settings may be put to the test.
        "utc": [init, [*VERBS["utc"], "--own-database", *rest]],
        "backup": [init, [*VERBS["backup"], file, *rest], [*restore, file]],
        # A file that is named is tried: whether it can be restored, and holds what it should.
        "restore": [init, [*restore, *rest]]
        if names_file
        else [init, [*VERBS["backup"], file], [*restore, file, *rest]],
    }
    return shown.get(verb, [init, [*VERBS[verb], *rest]])


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run a module of ours to its end and return its exit code. Ctrl-C is the module's to answer."""
    return supervise([sys.executable, "-m", *command], environment)


if __name__ == "__main__":
    enter(main)
