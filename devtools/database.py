"""The db_ commands, and the choice of the database on which they and `dev` work.

They use the first that exists, and announce it in one line: the configured database (DATABASE_URL, POSTGRES_HOST or
POSTGRES_PORT); Compose's `db`, if it runs, on DB_PORT; the embedded one in `.dev/postgres-18/`, which is started if
necessary. If none exists, `dev` creates the embedded one, and the db_ commands show their work on a temporary server.
"""

import argparse
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import freshpg
from backend.config import ROOT, Settings, load_settings
from backend.startup import describe
from devtools.command_line import enter, note
from freshpg import without_libpq_variables

DIRECTORY = ROOT / ".dev" / "postgres-18"
ANSWER_SECONDS = 5.0
"""The time that what listens on Compose's port gets to answer; a container may be busy."""

VERBS = {
    "init": ["backend.scripts.init_db"],
    "reset": ["backend.scripts.reset_db"],
    "seed": ["devtools.seed"],
    "shell": ["devtools.psql"],
    "utc": ["devtools.utc_check"],
    "backup": ["devtools.backup.dump"],
    "restore": ["devtools.backup.restore"],
}
# The settings that configure a database. The commands get DATABASE_URL instead of these.
PARTS = ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB")


@dataclass(frozen=True)
class Found:
    """The database to use: its URL, and whether its server is removed when the command ends."""

    url: str
    is_ephemeral: bool = False


@contextmanager
def find(settings: Settings, *, create: bool = False, ephemeral: bool = False) -> Iterator[Found]:
    """Yield the database to use, and announce it on standard error. A server that was started for it is stopped."""
    with nullcontext() if ephemeral else find_own(settings, create=create) as own:
        if own is not None:
            yield own
            return
    with without_libpq_variables():
        choice = freshpg.choose("auto")
        why = "Using a temporary database" if ephemeral else "No database found; using a temporary one"
        note(f"{why}. Your data is unchanged. {choice.announcement}.")
        with choice.start() as server:
            yield Found(freshpg.ensure_database(server.url, settings.postgres_db), is_ephemeral=True)


@contextmanager
def find_own(settings: Settings, *, create: bool = False) -> Iterator[Found | None]:
    """Yield the developer's own database, or None if it does not exist and must not be created."""
    with nullcontext() if settings.is_database_configured else without_libpq_variables():
        if (why := reason_to_use(settings)) is not None:
            note(f"Database: {describe(settings.database_url)}, {why}.")
            yield Found(settings.database_url.render_as_string(hide_password=False))
        elif create or DIRECTORY.exists():
            with embedded(settings) as found:
                yield found
        else:
            yield None


@contextmanager
def embedded(settings: Settings) -> Iterator[Found]:
    """Yield the database in `.dev`; its server is started unless another command already runs it."""
    place = os.path.relpath(DIRECTORY)
    if (old := older_data()) is not None and not DIRECTORY.exists():
        note(
            f"{os.path.relpath(old)} holds data of an older PostgreSQL: `nox -s db_upgrade` moves it to {place}."
        )
    shared = ", managed by another running command" if freshpg.running(DIRECTORY) else ""
    with freshpg.start_persistent(DIRECTORY) as server:
        note(f"Database: {settings.postgres_db} in {place}, PostgreSQL {server.version}, embedded{shared}.")
        yield Found(freshpg.ensure_database(server.url, settings.postgres_db))


def older_data() -> Path | None:
    """Return the newest directory of an older PostgreSQL in `.dev`, if there is one."""
    found = DIRECTORY.parent.glob("postgres-[0-9][0-9]")
    return max((path for path in found if path.name < DIRECTORY.name), default=None)


def reason_to_use(settings: Settings) -> str | None:
    """Return the reason to use the database of the settings, or None if it is not to be used."""
    if settings.is_database_configured:
        return "as configured"
    # A server that is starting, or that refuses our password or database, counts too.
    if answer_to_ssl_request(settings.db_port) in (b"S", b"N", b""):
        return f"Compose's, on DB_PORT {settings.db_port}"
    return None


def answer_to_ssl_request(port: int) -> bytes | None:
    """Return the first byte that a server on 127.0.0.1 answers to PostgreSQL's SSLRequest, None without an answer.

    PostgreSQL answers S or N, and Docker's proxy ends the connection while the container's server is still starting.
    """
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection,
    ):
        with suppress(ConnectionResetError):
            connection.sendall(struct.pack("!ii", 8, 80877103))
            return connection.recv(1)
        return b""
    return None


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
    if "--help" in rest:
        code = run([*VERBS[options.verb], "--help"], {})
        note("Every command also accepts --ephemeral: use a temporary server.")
        return code
    settings = load_settings()
    with find(settings, ephemeral=len(rest) < len(options.rest)) as found:
        if found.is_ephemeral:
            return demonstrate(options.verb, rest, found, settings)
        return run([*VERBS[options.verb], *rest], {"DATABASE_URL": found.url})


def demonstrate(verb: str, rest: list[str], found: Found, settings: Settings) -> int:
    """Run the verb on a temporary server, after the commands that it needs first."""
    environment = {"DATABASE_URL": found.url, "APP_ENV": "test"}
    with tempfile.TemporaryDirectory() as place:
        for command in demonstration_steps(verb, rest, settings.postgres_db, f"{place}/backup.dump"):
            if code := run(command, environment):
                return code
    note("It worked. The temporary server was removed; your data is unchanged.")
    return 0


def demonstration_steps(verb: str, rest: list[str], name: str, file: str) -> list[list[str]]:
    """Return the commands that show a verb on an empty server; they write a backup to this file if they need one."""
    # They pass the database's name as confirmation, because a container's host may be remote.
    reset, restore = ([*VERBS[each], "--yes-drop", name] for each in ("reset", "restore"))
    init = VERBS["init"]
    names_file = any(not word.startswith("-") for word in rest)
    drop_old = [[*restore, "--drop-old"]] if "--drop-old" in rest else []
    others = [word for word in rest if word != "--drop-old"]
    shown: dict[str, list[list[str]]] = {
        "init": [[*init, *rest], reset],
        "reset": [init, [*reset, *rest]],
        "seed": [init, [*VERBS["seed"], "--yes-seed", name, *rest]],
        "backup": [init, [*VERBS["backup"], file, *rest], [*restore, file]],
        # If a file is named, it is restored, which shows whether that is possible.
        "restore": [init, [*restore, *rest]]
        if names_file
        else [init, [*VERBS["backup"], file], [*restore, file, *others], *drop_old],
    }
    return shown.get(verb, [init, [*VERBS[verb], *rest]])


def run(command: Sequence[str], variables: dict[str, str]) -> int:
    """Run a module of this project with these variables, and return its exit code.

    The module gets Ctrl-C from the terminal, and SIGTERM is passed on to it, so it decides how to end.
    """
    kept = {name: value for name, value in os.environ.items() if name not in PARTS or not variables}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = kept | {"PYTHONPATH": os.pathsep.join(paths)} | variables
    # This is a handler and not SIG_IGN, because the command would inherit SIG_IGN.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with subprocess.Popen([sys.executable, "-P", "-m", *command], env=environment) as process:
            previous = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
            code = process.wait()
            signal.signal(signal.SIGTERM, previous)
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    enter(main)
