"""A server that keeps its data in a directory between runs, for development.

A process that starts the server holds a lock on `running` in the directory, and so do the supervisor and the server,
which inherit it: the server runs exactly as long as the lock is held, whether or not it accepts connections. Nobody
but its owner ever stops it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg

from .binaries import Binaries, find_binaries, initdb_arguments
from .embedded import Cluster, initialise, runnable, start
from .run_as import RunAs, possible_users, preferred_user
from .server import PostgresUnavailable, Server, connect_to_own, last_line, local_url
from .supervisor_client import SupervisorClient

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_SECONDS = 10.0
"""For a server that runs already: it may be slow, or on its way out after its owner was killed."""
_RETRY_SECONDS = 0.1
_SETTINGS = ("max_connections=200",)


def start_persistent(
    directory: Path, binaries: Binaries | None = None, run_as: RunAs | None = None
) -> Server:
    """Start the server whose data are in `directory`, or connect to it if another process runs it.

    On first use the directory is initialised: a superuser `postgres`, whose password is in the file `password` of
    mode 0600, and a port that stays the same while it is free. Only the process that started the server stops it.
    Raises PostgresUnavailable, within seconds if the server runs and does not accept connections.
    """
    home = _Home(directory.absolute())
    home.make()
    with home.locked():
        lock = home.take()
        if lock is None:
            # Held still by a server on its way out, or by one that runs.
            found = home.connect_or_take()
            if isinstance(found, Server):
                return found
            lock = found
        try:
            return _start(home, binaries or find_binaries(), run_as or preferred_user(), lock)
        finally:
            # The supervisor and the server have inherited it.
            os.close(lock)


def running(directory: Path) -> Server | None:
    """Return the server of this directory if it runs, whether or not it accepts connections at the moment.

    Stopping the result leaves the server running.
    """
    home = _Home(directory.absolute())
    return home.server() if home.is_running() else None


def _start(home: _Home, binaries: Binaries, run_as: RunAs, lock: int) -> Server:
    home.prepare(binaries, run_as)
    data = home.data.resolve()
    supervisor = SupervisorClient(lock=lock)
    try:
        programs = runnable(binaries, run_as, data.with_name("programs"))
        if not data.exists():
            # Under another name first: data that a killed run left half-made never have the final one.
            making = data.with_name("data.making")
            shutil.rmtree(making, ignore_errors=True)
            initialise(programs, run_as, making, initdb_arguments(binaries.major), home.password())
            making.rename(data)
        home.log.unlink(missing_ok=True)
        server = start(
            supervisor, Cluster(programs, run_as, data, home.log, _SETTINGS, home.password(), home.port())
        )
        home.remember(server)
    except OSError as error:
        supervisor.stop()
        raise PostgresUnavailable(f"The server of {home.directory} did not start: {error}.") from None
    except BaseException:
        supervisor.stop()
        raise
    return server


class _Home:
    """The directory and what lies in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self._password = directory / "password"
        self._known = directory / "server.json"
        self._lock = directory / "lock"
        self._running = directory / "running"

    def make(self) -> None:
        parent = self.directory.parent
        try:
            if not parent.exists():
                parent.mkdir(parents=True)
                # Nothing in a directory that is only ours is to be committed.
                (parent / ".gitignore").write_text("*\n", encoding="utf-8")
            self.directory.mkdir(exist_ok=True)
        except OSError as error:
            raise PostgresUnavailable(f"Cannot create {self.directory}: {error.strerror}.") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time initialise and start."""
        try:
            lock = self._lock.open("w", encoding="utf-8")
        except PermissionError:
            raise PostgresUnavailable(
                f"{self.directory} belongs to another user; use another directory."
            ) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def take(self) -> int | None:
        """Take the lock that means that the server runs; return its descriptor, or None if it is taken."""
        lock = os.open(self._running, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def is_running(self) -> bool:
        try:
            with self._running.open(encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def server(self) -> Server:
        """Return the server that runs, without asking it anything."""
        return Server(
            local_url(self.port(), self.password()), str(self._remembered().get("version", "")), "embedded"
        )

    def connect_or_take(self) -> Server | int:
        """Return the server that runs once it accepts connections, or the lock once the server has ended."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            server = self.server()
            left = max(1, round(deadline - time.monotonic()))
            try:
                connect_to_own(server.url, seconds=left).close()
            except psycopg.Error as error:
                refusal = last_line(error)
            else:
                return server
            if (lock := self.take()) is not None:
                return lock
            if time.monotonic() > deadline:
                raise PostgresUnavailable(
                    f"The server of {self.directory} is running, started by another command, and cannot be reached: "
                    f"{refusal}.\nIt was left alone. End the command that runs it, or try again."
                )
            time.sleep(_RETRY_SECONDS)

    def password(self) -> str:
        return _text(self._password).strip()

    def port(self) -> int:
        return int(self._remembered().get("port", 0))

    def _remembered(self) -> dict[str, Any]:
        try:
            known = json.loads(_text(self._known))
        except ValueError:
            return {}
        return known if isinstance(known, dict) else {}

    def remember(self, server: Server) -> None:
        """Write down what other processes have to know."""
        _write(self._known, json.dumps({"port": urlsplit(server.url).port, "version": server.version}))

    def prepare(self, binaries: Binaries, run_as: RunAs) -> None:
        """Make sure that the data can be used or made; raise PostgresUnavailable."""
        if not run_as.can_enter(self.directory):
            raise PostgresUnavailable(
                f"The account {run_as.name}, which PostgreSQL runs as for root, cannot reach {self.directory}; "
                "use a directory that it can reach, or run as an ordinary user."
            )
        if self.data.exists():
            self._check(binaries)
            run_as.give(self.data)
        else:
            _write(self._password, secrets.token_urlsafe(24))

    def _check(self, binaries: Binaries) -> None:
        owner = self.data.stat().st_uid
        if owner not in (user.owner[0] for user in possible_users()):
            raise PostgresUnavailable(
                f"The data in {self.directory} belong to another user (uid {owner}); run as that user, or use another "
                "directory."
            )
        major = _text(self.data / "PG_VERSION").strip()
        if major and major != str(binaries.major):
            raise PostgresUnavailable(
                f"{self.directory} holds data of PostgreSQL {major}, and the programs here are {binaries.version}.\n"
                f"Install PostgreSQL {major} to use or dump them, or remove {self.directory} to start again."
            )
        if not self.password():
            raise PostgresUnavailable(
                f"The file `password` is missing from {self.directory}; remove the directory to start again."
            )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    """Write a file of mode 0600 so that it is complete or absent."""
    descriptor, making = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
    Path(making).rename(path)
