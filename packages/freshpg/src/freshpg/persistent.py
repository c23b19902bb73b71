"""A server that keeps its data in a directory between runs, for development."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from .binaries import Binaries, find_binaries
from .embedded import SUPERUSER, Place, launch
from .identity import Identity, possible_identities, preferred_identity
from .server import PostgresUnavailable, Server, local_url, server_version

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHUTDOWN_SECONDS = 15.0
_RETRY_SECONDS = 0.05
_IN_USE = 'lock file "postmaster.pid" already exists'


def start_persistent(
    directory: Path, binaries: Binaries | None = None, identity: Identity | None = None
) -> Server:
    """Start the server whose data lies in `directory`, or connect to it if some process already runs it.

    On first use the directory is initialised: a superuser `postgres`, whose password lies beside the data in a file
    of mode 0600, and a port that stays the same while it is free. Only the process that started the server stops it.
    Raises PostgresUnavailable.
    """
    directory = directory.absolute()
    _make(directory)
    home = _Home(directory)
    with home.locked():
        if (server := running(directory)) is not None:
            return server
        binaries = binaries or find_binaries()
        identity = identity or home.owner() or preferred_identity()
        notes = home.settle(binaries, identity)
        server = _launch(home, binaries, identity)
        server.notes = notes
        home.remember_port(server)
        home.give_files_back()
        return server


def _make(directory: Path) -> None:
    try:
        if not directory.parent.exists():
            directory.parent.mkdir(parents=True)
            # The parent is ours alone then, and nothing below it is for anybody's commit.
            (directory.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise PostgresUnavailable(f"{directory} cannot be made: {error.strerror}.") from None


def running(directory: Path) -> Server | None:
    """Return the server of this directory if one answers; stopping that leaves it running."""
    home = _Home(directory.absolute())
    port, password = home.port(), home.password()
    if not port or not password:
        return None
    url = local_url(port, SUPERUSER, password)
    # Another server may have the port by now; it knows another password, or is of another directory.
    with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2) as connection:
        row = connection.execute("show data_directory").fetchone()
        if row is not None and Path(row[0]).resolve() == home.data.resolve():
            return Server(url, server_version(url), "embedded")
    return None


class _Home:
    """The directory and what lies in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self._password = directory / "password"
        self._port = directory / "port.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time initialise and start."""
        try:
            lock = (self.directory / "lock").open("w", encoding="utf-8")
        except PermissionError:
            raise PostgresUnavailable(
                f"{self.directory} belongs to another user; use a directory of your own, or remove it as its owner."
            ) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def password(self) -> str:
        return _text(self._password).strip()

    def port(self) -> int:
        with suppress(ValueError, KeyError, TypeError):
            return int(json.loads(_text(self._port))["port"])
        return 0

    def remember_port(self, server: Server) -> None:
        port = int(psycopg.conninfo.conninfo_to_dict(server.url)["port"] or 0)
        _write(self._port, json.dumps({"port": port}))

    def owner(self) -> Identity | None:
        """Return the ordinary user whose data these are, if root is asked to serve them: they stay that user's."""
        if os.geteuid() != 0 or not self.data.exists():
            return None
        found = self.data.stat()
        if found.st_uid in (identity.owner[0] for identity in possible_identities()):
            return None
        return Identity("owner", uid=found.st_uid, gid=found.st_gid)

    def give_files_back(self) -> None:
        """Leave the files that root made here to the directory's owner, who has to read them next time."""
        if os.geteuid() == 0:
            found = self.directory.stat()
            for file in (self.log, self._password, self._port, self.directory / "lock"):
                os.chown(file, found.st_uid, found.st_gid)

    def place(self, *, initialise: bool) -> Place:
        # Where the data are elsewhere, so is their half-made form: a rename cannot cross file systems.
        data = self.data.readlink() if self.data.is_symlink() else self.data
        return Place(
            self.directory,
            data=data,
            log=self.log,
            password=self.password(),
            port=self.port(),
            ephemeral=False,
            initialise=initialise,
            programs=data.with_name("programs"),
        )

    def settle(self, binaries: Binaries, identity: Identity) -> tuple[str, ...]:
        """Make sure that the data are there, or can be made, where the identity reaches them; return what to tell."""
        notes = []
        if self.data.is_symlink() and not self.data.exists():
            notes.append(f"{self.data} led to {self.data.readlink()}, which is gone: it is made anew.")
            self.data.unlink()
        if self.data.exists():
            self._check_version(binaries)
            self._check_owner(identity)
        if not identity.can_enter(self.directory) and not self.data.is_symlink():
            target = _elsewhere(self.directory) / "data"
            if self.data.exists():
                shutil.move(self.data, target)
                _give(target, identity.owner)
            self.data.symlink_to(target)
            notes.append(
                f"The account that PostgreSQL runs as cannot reach {self.directory}: the data are in {target}."
            )
        if not self.data.exists():
            _write(self._password, secrets.token_urlsafe(24))
        return tuple(notes)

    def _check_version(self, binaries: Binaries) -> None:
        major = _text(self.data / "PG_VERSION").strip()
        if major and major != str(binaries.major):
            raise PostgresUnavailable(
                f"{self.directory} holds the data of PostgreSQL {major}, and the programs here are "
                f"{binaries.version}.\n"
                f"Install PostgreSQL {major}'s programs to use or dump them, or remove {self.directory} to begin anew."
            )
        if not self.password():
            raise PostgresUnavailable(
                f"The password file is missing from {self.directory}; remove that directory to begin anew."
            )

    def _check_owner(self, identity: Identity) -> None:
        owner = self.data.stat().st_uid
        if owner == identity.owner[0]:
            return
        if os.geteuid() != 0:
            raise PostgresUnavailable(
                f"The data in {self.directory} belong to another user (uid {owner}); use a directory of your own, "
                f"or remove that one."
            )
        _give(self.data.resolve(), identity.owner)


def _launch(home: _Home, binaries: Binaries, identity: Identity) -> Server:
    """Launch, and again while the server of a run that has just ended is still on its way out."""
    deadline = time.monotonic() + _SHUTDOWN_SECONDS
    while True:
        place = home.place(initialise=not home.data.exists())
        try:
            return launch(place, binaries, identity)[0]
        except PostgresUnavailable as error:
            if _IN_USE not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_SECONDS)


def _elsewhere(directory: Path) -> Path:
    """Make a place for this directory's data that any account can reach, and only root can change."""
    base = Path("/var/lib") if os.access("/var/lib", os.W_OK) else Path("/var/tmp")  # noqa: S108 (checked below)
    shelf = base / "embedded-postgres"
    shelf.mkdir(mode=0o755, exist_ok=True)
    if shelf.is_symlink() or shelf.stat().st_uid != os.geteuid():
        raise PostgresUnavailable(f"{shelf} belongs to another user, and PostgreSQL's data have to go there.")
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    place = shelf / f"{directory.name}-{digest}"
    # Data that are there without a way to them are of a directory that was removed.
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o755)
    # The umask may have taken from the modes what the account needs.
    shelf.chmod(0o755)
    place.chmod(0o755)
    return place


def _give(tree: Path, owner: tuple[int, int]) -> None:
    for place, _, files in os.walk(tree):
        for name in (place, *(os.path.join(place, file) for file in files)):  # noqa: PTH118 (thousands of them)
            os.chown(name, *owner, follow_symlinks=False)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    """Write a file of mode 0600 so that it is whole or not there."""
    making = path.with_name(f"{path.name}.making")
    making.unlink(missing_ok=True)
    with os.fdopen(
        os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text + "\n")
    making.rename(path)
