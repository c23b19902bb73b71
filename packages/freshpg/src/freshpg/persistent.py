"""A server that keeps its data in a directory between runs, for development.

A process that starts the server holds a lock on `running` in the directory, and so do initdb, the supervisor and the
server, which inherit it: the directory is in use exactly as long as the lock is held, whether or not the server accepts
connections. Nobody but its owner ever stops it.
"""

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from .binaries import Binaries, find_binaries, find_binaries_of, initdb_arguments
from .embedded import initialise, password_in, runnable, start, text_of, write_private
from .libpq import connect, last_line, without_libpq_variables
from .run_as import RunAs, possible_users, preferred_user
from .server import PostgresUnavailable, Server, local_url
from .supervisor import Supervisor

ANSWER_SECONDS = 10.0
"""For a server that runs already: it may be slow, just starting, or on its way out after its owner was killed."""
_RETRY_SECONDS = 0.1
_SETTINGS = ("max_connections=200",)


@without_libpq_variables()
def start_persistent(
    directory: Path, binaries: Binaries | None = None, run_as: RunAs | None = None
) -> Server:
    """Start the server whose data are in `directory`, or connect to it if another process runs it.

    On first use the directory is initialised: a superuser `postgres`, whose password is in the file `password` of
    mode 0600, and a port that stays the same while it is free. Only the process that started the server stops it.
    Raises PostgresUnavailable, within seconds if the server runs and does not accept connections.
    """
    directory = directory.absolute()
    deadline = time.monotonic() + ANSWER_SECONDS
    while (lock := _take(directory)) is None:
        server = _server(directory)
        try:
            connect(server.url, seconds=max(1, round(deadline - time.monotonic()))).close()
        except psycopg.Error as error:
            if time.monotonic() > deadline:
                raise PostgresUnavailable(
                    f"The server of {directory} is running, started by another command, and cannot be reached: "
                    f"{last_line(error)}.\nIt was left alone. End the command that runs it, or try again."
                ) from None
            time.sleep(_RETRY_SECONDS)
        else:
            return server
    try:
        return _start(directory, binaries or _binaries(directory), run_as or preferred_user(), lock)
    finally:
        # The supervisor and the server have inherited it.
        os.close(lock)


def running(directory: Path) -> Server | None:
    """Return the server of this directory if it runs, whether or not it accepts connections at the moment.

    Stopping the result leaves the server running.
    """
    try:
        with (directory / "running").open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _server(directory)
    except OSError:
        pass
    return None


def _take(directory: Path) -> int | None:
    """Create the directory, and take the lock that means that the server runs; return None if it is taken."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not any(directory.iterdir()):
            # Nothing in a directory that is only ours is to be committed.
            (directory / ".gitignore").write_text("*\n", encoding="utf-8")
        lock = os.open(directory / "running", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:  # it belongs to another user, or is read-only
        raise PostgresUnavailable(
            f"Cannot write to {directory}: {error.strerror}; use another directory."
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _binaries(directory: Path) -> Binaries:
    """Return the programs of the data's version if they are installed, else the preferred ones."""
    major = text_of(directory / "data" / "PG_VERSION").strip()
    return (find_binaries_of(int(major)) if major.isdecimal() else None) or find_binaries()


def _start(directory: Path, binaries: Binaries, run_as: RunAs, lock: int) -> Server:
    _check(directory, binaries, run_as)
    data = (directory / "data").resolve()
    supervisor = Supervisor(lock=lock)
    try:
        programs = runnable(binaries, run_as, data.with_name("programs"))
        if data.exists():
            run_as.give(data)
        else:
            # Under another name first: data that a killed run left half-made never have the final one.
            making = data.with_name("data.making")
            shutil.rmtree(making, ignore_errors=True)
            arguments = initdb_arguments(binaries.major)
            initialise(programs, run_as, directory, making, arguments, inherited=[lock])
            making.rename(data)
        port = urlsplit(_server(directory).url).port or 0
        server = start(supervisor, programs, run_as, directory, settings=_SETTINGS, port=port)
        known = {"port": urlsplit(server.url).port, "version": server.version}
        write_private(directory / "server.json", json.dumps(known))
    except BaseException as error:
        supervisor.stop()
        if isinstance(error, OSError):
            raise PostgresUnavailable(f"The server of {directory} did not start: {error}.") from None
        raise
    return server


def _check(directory: Path, binaries: Binaries, run_as: RunAs) -> None:
    """Raise PostgresUnavailable if there are data that cannot be used, or none can be made."""
    if not run_as.can_enter(directory):
        raise PostgresUnavailable(
            f"The account {run_as.name}, which PostgreSQL runs as for root, cannot reach {directory}; "
            "use a directory that it can reach, or run as an ordinary user."
        )
    data = directory / "data"
    if not data.exists():
        return
    owner, major = data.stat().st_uid, text_of(data / "PG_VERSION").strip()
    if owner not in (user.owner[0] for user in possible_users()):
        raise PostgresUnavailable(
            f"The data in {directory} belong to another user (uid {owner}); run as that user, or use another directory."
        )
    if major and major != str(binaries.major):
        raise PostgresUnavailable(
            f"{directory} holds data of PostgreSQL {major}, and the programs here are {binaries.version}.\n"
            f"Install PostgreSQL {major} to use or dump them, or remove {directory} to start again."
        )
    if not password_in(directory):
        raise PostgresUnavailable(
            f"The file `password` is missing from {directory}; remove the directory to start again."
        )


def _server(directory: Path) -> Server:
    """Return the server that runs, without asking it anything."""
    known = json.loads(text_of(directory / "server.json") or '{"port": 0, "version": ""}')
    return Server(local_url(known["port"], password_in(directory)), known["version"], "embedded")
