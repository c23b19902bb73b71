"""Servers from PostgreSQL's programs on this machine: how they are initialised and started, and temporary ones."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq, sql

from . import data_dir_cache
from .binaries import Binaries, find_binaries, temporary_initdb_arguments
from .run_as import RunAs, preferred_user
from .server import (
    SUPERUSER,
    TEST_SETTINGS,
    PostgresUnavailable,
    Server,
    connect_to_own,
    connected_version,
    last_line,
    local_url,
    without_libpq_variables,
)
from .supervisor_client import SupervisorClient

if TYPE_CHECKING:
    from collections.abc import Sequence

START_SECONDS = 120.0
_POLL_SECONDS = 0.002
_PORT_ATTEMPTS = 5
_ROOM_BYTES = 512 * 1024 * 1024
_LOG_LINES = 20
_DEATH_LOG_LINES = 3
_SOON_SECONDS, _NOTICE_SECONDS = 0.1, 2.0
"""For the supervisor to notice the end of the server, after a client did."""


@dataclass(frozen=True)
class Cluster:
    """Initialised data, and everything needed to start a server on them."""

    binaries: Binaries
    run_as: RunAs
    data: Path
    log: Path
    settings: Sequence[str]
    password: str
    port: int = 0
    """The port to use if it is free; 0 for any."""


def start_ephemeral(
    binaries: Binaries | None = None, run_as: RunAs | None = None, *, settings: Sequence[str] = ()
) -> Server:
    """Start a new server that leaves nothing when it or this process ends; raise PostgresUnavailable.

    Its data are in memory if there is room, and durability is off. `settings` are further server settings, as
    `name=value`.
    """
    binaries, run_as = binaries or find_binaries(), run_as or preferred_user()
    entry = data_dir_cache.entry_for(binaries, temporary_initdb_arguments(binaries.major))
    if entry.exists():
        try:
            return _start_ephemeral(binaries, run_as, settings, entry)
        except PostgresUnavailable:
            # Perhaps the entry is damaged.
            data_dir_cache.discard(entry)
    return _start_ephemeral(binaries, run_as, settings, entry)


def _start_ephemeral(binaries: Binaries, run_as: RunAs, settings: Sequence[str], entry: Path) -> Server:
    name = f"freshpg-{secrets.token_hex(8)}"
    directory = _temporary_base(run_as) / name
    # Not next to the data: programs often may not run from a file system in memory.
    programs = Path("/var/tmp") / f"{name}-programs"  # noqa: S108 (its name is random, and it must not exist)
    data = directory / "data"
    supervisor = SupervisorClient([directory, programs])
    try:
        # The directory stays ours: another process of the server's account could replace what is in it.
        directory.mkdir(mode=0o700 if run_as.uid is None else 0o711)
        binaries = runnable(binaries, run_as, programs)
        password = data_dir_cache.copy(entry, data)
        if password is not None:
            run_as.give(data)
        else:
            password = secrets.token_urlsafe(24)
            initialise(binaries, run_as, data, temporary_initdb_arguments(binaries.major), password)
            data_dir_cache.keep(entry, data, password)
        cluster = Cluster(binaries, run_as, data, directory / "log", (*TEST_SETTINGS, *settings), password)
        return start(supervisor, cluster, new_password=secrets.token_urlsafe(24))
    except OSError as error:
        supervisor.stop()
        raise PostgresUnavailable(f"The embedded PostgreSQL did not start: {error}.") from None
    except BaseException:
        supervisor.stop()
        raise


def start(supervisor: SupervisorClient, cluster: Cluster, *, new_password: str = "") -> Server:
    """Start a server, wait until it accepts connections, and change the superuser's password if asked to."""
    settings = (*cluster.settings, "listen_addresses=127.0.0.1", "unix_socket_directories=")
    command = [cluster.binaries.program("postgres"), *(word for text in settings for word in ("-c", text))]
    for _ in range(_PORT_ATTEMPTS):
        port = free_port(cluster.port)
        supervisor.start([*command, "-p", str(port)], cluster.data, cluster.log, cluster.run_as)
        try:
            version = _wait_until_ready(supervisor, local_url(port, cluster.password), new_password)
        except TimeoutError as error:
            refusal = str(error)
        else:
            url = local_url(port, new_password or cluster.password)
            death = partial(_describe_death, supervisor, port, cluster.log)
            return Server(url, version, "embedded", supervisor.stop, supervisor.leave, death)
        if supervisor.ended(_SOON_SECONDS) is None or free_port(port) == port:
            break
        # Another process took the port just before the server did.
    raise PostgresUnavailable(
        with_log(f"The embedded PostgreSQL did not start: {refusal}.", text_of(cluster.log))
    )


def _wait_until_ready(supervisor: SupervisorClient, url: str, new_password: str) -> str:
    """Wait for the server, change its password, and return its version; TimeoutError with a reason if it is no use."""
    deadline = time.monotonic() + START_SECONDS
    with without_libpq_variables():
        while pq.PGconn.ping(url.encode()) != pq.Ping.OK:
            if (ended := supervisor.ended()) is not None:
                raise TimeoutError(f"the server ended with {ended}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"it was not ready within {START_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
    try:
        with connect_to_own(url) as connection:
            if new_password:
                statement = sql.SQL("alter role {} password {}")
                connection.execute(statement.format(sql.Identifier(SUPERUSER), sql.Literal(new_password)))
            return connected_version(connection)
    except psycopg.Error as error:
        raise TimeoutError(f"it refuses connections: {last_line(error)}") from None


def initialise(
    binaries: Binaries, run_as: RunAs, data: Path, arguments: Sequence[str], password: str
) -> None:
    """Run initdb; raise PostgresUnavailable with what it says if it fails."""
    descriptor, name = tempfile.mkstemp(dir=data.parent)
    password_file = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{password}\n")
        os.chown(password_file, *run_as.owner)
        data.mkdir(mode=0o700)
        run_as.give(data)
        command = [binaries.program("initdb"), *arguments, f"--pwfile={name}", f"--pgdata={data}"]
        answer = run_as.run(command)
    finally:
        password_file.unlink(missing_ok=True)
    if answer.returncode != 0:
        reason = f"initdb ended with exit status {answer.returncode}"
        raise PostgresUnavailable(
            with_log(
                f"The embedded PostgreSQL did not start: {reason}.", answer.stdout.decode(errors="replace")
            )
        )


def runnable(binaries: Binaries, run_as: RunAs, programs: Path) -> Binaries:
    """Return the programs, or a copy of them in the directory `programs` if the user cannot run them where they are."""
    if run_as.works((binaries.program("postgres"), "--version")):
        return binaries
    if not binaries.may_be_copied:
        raise PostgresUnavailable(
            f"The account that PostgreSQL runs as cannot run {binaries.program('postgres')}."
        )
    installation = binaries.bin.parent
    root = installation.parent.parent
    target = programs / binaries.version
    if not target.exists():
        making = programs / "making"
        shutil.rmtree(making, ignore_errors=True)
        for source in (installation, *binaries.libraries):
            shutil.copytree(source, making / source.relative_to(root), symlinks=True)
        making.rename(target)
        run_as.give(programs)
    return replace(binaries, bin=target / binaries.bin.relative_to(root))


def free_port(wanted: int = 0) -> int:
    """Return the wanted port if it is free on 127.0.0.1, else one that the kernel chooses."""
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise PostgresUnavailable("No port is free on 127.0.0.1.")


def accepts_tcp(host: str, port: int) -> bool:
    """Tell whether something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=_NOTICE_SECONDS).close()
    except OSError:
        return False
    return True


def _describe_death(supervisor: SupervisorClient, port: int, log: Path) -> str | None:
    ended = supervisor.ended(_SOON_SECONDS)
    if ended is None and not accepts_tcp("127.0.0.1", port):
        ended = supervisor.ended(_NOTICE_SECONDS)
    if ended is None:
        return None
    return death_line(f"The embedded PostgreSQL server ended with {ended}", text_of(log))


def death_line(what: str, log: str) -> str:
    """Return one line that says what ended, and the last lines of its log."""
    tail = " | ".join(line.strip() for line in log.strip().splitlines()[-_DEATH_LOG_LINES:])
    return f"{what}. Its log ends: {tail}" if tail else f"{what}."


def with_log(message: str, log: str) -> str:
    """Return the message followed by the last lines of a log."""
    tail = "\n".join(f"  {line}" for line in log.strip().splitlines()[-_LOG_LINES:])
    return f"{message} Its log ends:\n{tail}" if tail else message


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _temporary_base(run_as: RunAs) -> Path:
    memory = Path("/dev/shm")  # noqa: S108 (the directory made there has mode 0700 and a random name)
    with suppress(OSError):
        if memory.is_mount() and shutil.disk_usage(memory).free >= _ROOM_BYTES and os.access(memory, os.W_OK):
            return memory
    base = Path(tempfile.gettempdir()).resolve()
    # A private TMPDIR is no place for another account.
    return base if run_as.can_enter(base) else Path("/var/tmp")  # noqa: S108 (as above)
