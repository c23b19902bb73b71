"""The db_ commands, and the choice of the database on which they and `dev` work.

They use the first that exists, and announce it in one line: the configured database (DATABASE_URL, POSTGRES_HOST or
POSTGRES_PORT); Compose's `db`, if it runs, on DB_PORT; the embedded one in `.dev/postgres-18/`, which is started if
necessary. If none exists, `dev` creates the embedded one, and the db_ commands show their work on a temporary server.
"""

import argparse
import errno
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import freshpg
from backend.config import ROOT, Settings, load_settings
from backend.startup import describe
from devtools.command_line import enter, note
from freshpg import without_libpq_variables

DIRECTORY = ROOT / ".dev" / "postgres-18"

VERBS = {
    "init": "backend.scripts.init_db",
    "reset": "backend.scripts.reset_db",
    "seed": "devtools.seed",
    "shell": "devtools.psql",
    "utc": "devtools.utc_check.command",
    "backup": "devtools.backup.dump",
    "restore": "devtools.backup.restore",
}


@contextmanager
def find_own(settings: Settings, *, create: bool = False) -> Iterator[str]:
    """Yield the URL of the developer's own database, which is announced on standard error.

    It is empty if the database does not exist and must not be created. A server that was started for it is stopped.
    """
    with nullcontext() if settings.is_database_configured else without_libpq_variables():
        if (why := reason_to_use(settings)) is not None:
            note(f"Database: {describe(settings.database_url)}, {why}.")
            yield settings.database_url.render_as_string(hide_password=False)
            return
        if (old := older_data()) is not None and not DIRECTORY.exists():
            place, new = os.path.relpath(old), os.path.relpath(DIRECTORY)
            note(f"{place} holds data of an older PostgreSQL: `nox -s db_upgrade` moves it to {new}.")
        if create or DIRECTORY.exists():
            with embedded(settings) as url:
                yield url
        else:
            yield ""


@contextmanager
def temporary(reason: str, name: str) -> Iterator[str]:
    """Yield the URL of an empty database on a server that is removed afterwards, and announce it with the reason."""
    with without_libpq_variables():
        choice = freshpg.choose("auto")
        note(f"{reason}. Your data is unchanged. {choice.announcement}.")
        with choice.start() as server:
            yield freshpg.ensure_database(server.url, name)


@contextmanager
def embedded(settings: Settings) -> Iterator[str]:
    """Yield the URL of the database in `.dev`; its server is started unless another command already runs it."""
    place = os.path.relpath(DIRECTORY)
    shared = ", managed by another running command" if freshpg.running(DIRECTORY) else ""
    with freshpg.start_persistent(DIRECTORY) as server:
        note(f"Database: {settings.postgres_db} in {place}, PostgreSQL {server.version}, embedded{shared}.")
        yield freshpg.ensure_database(server.url, settings.postgres_db)


def older_data() -> Path | None:
    """Return the newest directory of an older PostgreSQL in `.dev`, if there is one."""
    found = DIRECTORY.parent.glob("postgres-[0-9][0-9]")
    return max((path for path in found if path.name < DIRECTORY.name), default=None)


def reason_to_use(settings: Settings) -> str | None:
    """Return the reason to use the database of the settings, or None if it is not to be used."""
    if settings.is_database_configured:
        return "as configured"
    # A server that is starting, or that refuses our password or database, counts too.
    if is_listening(settings.db_port):
        return f"Compose's, on DB_PORT {settings.db_port}"
    return None


def is_listening(port: int) -> bool:
    """Return whether a server listens on 127.0.0.1; Docker's proxy does before the container's server has started."""
    with socket.socket() as client:
        client.settimeout(1)
        # A server may end the connection at once; and a client that is given this very port connects to itself.
        is_answered = client.connect_ex(("127.0.0.1", port)) in (0, errno.ECONNRESET)
        return is_answered and client.getsockname()[1] != port


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m devtools.database",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, help="what to do with the database")
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, help="--ephemeral, and the options of the command (VERB --help)"
    )
    options = parser.parse_args(arguments)
    rest = [argument for argument in options.rest if argument != "--ephemeral"]
    # psql's -h names a host.
    if "--help" in rest or ("-h" in rest and options.verb != "shell"):
        note("Every command also accepts --ephemeral: use a temporary server.")
        return run(options.verb, rest)
    settings, why = load_settings(), "Using a temporary database"
    if len(rest) == len(options.rest):
        with find_own(settings) as url:
            if url:
                os.environ["DATABASE_URL"] = url
                return run(options.verb, rest)
        why = "No database found; using a temporary one"
    with temporary(why, settings.postgres_db) as url:
        os.environ |= {"DATABASE_URL": url, "APP_ENV": "test"}
        code = demonstrate(options.verb, rest, settings.postgres_db)
    if code == 0:
        note("It worked. The temporary server was removed; your data is unchanged.")
    return code


def demonstrate(verb: str, rest: list[str], name: str) -> int:
    """Run the verb on an empty server, after the commands that it needs first."""
    # The database's name confirms it, because a container's host may be remote.
    option = {"reset": "--yes-drop", "restore": "--yes-drop", "seed": "--yes-seed"}.get(verb)
    confirmation = [option, name] if option else []
    if verb != "init":
        run("init")
    with tempfile.TemporaryDirectory() as place:
        words = [word for before, word in pairwise(["", *rest]) if before != "--yes-drop"]
        names_file = "--drop-old" in words or not all(word.startswith("-") for word in words)
        if verb in ("backup", "restore") and not names_file:
            file = f"{place}/backup.dump"
            if verb == "restore":
                run("backup", [file])
            rest = [*rest, file]
        return run(verb, [*confirmation, *rest])


def run(verb: str, arguments: Sequence[str] = ()) -> int:
    """Run a command in this process, and return its exit code."""
    # Imported on demand, because importing all of them would double the start of every command.
    code: int | None = import_module(VERBS[verb]).main(arguments)
    return code or 0


if __name__ == "__main__":
    enter(main)
