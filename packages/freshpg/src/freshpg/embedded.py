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
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

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
)
from .supervisor_client import SupervisorClient, read_postmaster

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
    arguments = temporary_initdb_arguments(binaries.major)
    entry = data_dir_cache.entry_for(binaries, arguments)
    if entry.exists():
        try:
            return _start_ephemeral(binaries, run_as, settings, arguments, entry)
        except PostgresUnavailable:
            # Perhaps the entry is damaged.
            data_dir_cache.discard(entry)
    return _start_ephemeral(binaries, run_as, settings, arguments, entry)


def _start_ephemeral(
    binaries: Binaries, run_as: RunAs, settings: Sequence[str], arguments: Sequence[str], entry: Path
) -> Server:
    name = f"freshpg-{secrets.token_hex(8)}"
    directory = _temporary_base(run_as) / name
    # Not next to the data: programs often may not run from a file system in memory.
    programs = Path("/var/tmp") / f"{name}-programs"  # noqa: S108 (its name is random, and it must not exist)
    data, log = directory / "data", directory / "log"
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
            initialise(binaries, run_as, data, arguments, password)
            data_dir_cache.keep(entry, data, password)
        cluster = Cluster(binaries, run_as, data, log, (*TEST_SETTINGS, *settings), password)
        return start(supervisor, cluster, new_password=secrets.token_urlsafe(24))
    except OSError as error:
        supervisor.stop()
        raise PostgresUnavailable(f"The embedded PostgreSQL did not start: {error}.") from None
    except BaseException:
        supervisor.stop()
        raise


def start(supervisor: SupervisorClient, cluster: Cluster, *, new_password: str | None = None) -> Server:
    """Start a server and wait until it accepts connections; raise PostgresUnavailable.

    The superuser gets the new password, if any.
    """
    port = _serve(supervisor, cluster)
    url = local_url(port, cluster.password)
    try:
        with connect_to_own(url) as connection:
            version = connected_version(connection)
            if new_password is not None:
                statement = sql.SQL("alter role {} password {}")
                connection.execute(statement.format(sql.Identifier(SUPERUSER), sql.Literal(new_password)))
                url = local_url(port, new_password)
    except psycopg.Error as error:
        raise PostgresUnavailable(
            f"The embedded PostgreSQL refuses connections: {last_line(error)}."
        ) from None
    return Server(
        url,
        version,
        "embedded",
        on_stop=supervisor.stop,
        on_leave=supervisor.leave,
        on_death=lambda: _describe_death(supervisor, port, cluster.log),
    )


def _serve(supervisor: SupervisorClient, cluster: Cluster) -> int:
    """Start a server and wait until it says that it is ready; return its port."""
    settings = (*cluster.settings, "listen_addresses=127.0.0.1", "unix_socket_directories=")
    command = [cluster.binaries.program("postgres"), *(word for text in settings for word in ("-c", text))]
    deadline = time.monotonic() + START_SECONDS
    for _ in range(_PORT_ATTEMPTS):
        port = free_port(cluster.port)
        pid = supervisor.start([*command, "-p", str(port)], cluster.data, cluster.log, cluster.run_as)
        while (ended := supervisor.ended()) is None:
            postmaster = read_postmaster(cluster.data)
            if postmaster is not None and postmaster.pid == pid and postmaster.is_ready:
                return port
            if time.monotonic() > deadline:
                raise PostgresUnavailable(
                    _failure(f"it was not ready within {START_SECONDS:.0f} s", cluster.log)
                )
            time.sleep(_POLL_SECONDS)
        if free_port(port) == port:
            break
        # Another process took the port just before the server did.
    raise PostgresUnavailable(_failure(f"the server ended with {ended}", cluster.log))


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
        answer = run_as.run(command, capture_output=True)
    finally:
        password_file.unlink(missing_ok=True)
    if answer.returncode != 0:
        said = (answer.stdout + answer.stderr).decode(errors="replace")
        reason = f"initdb ended with exit status {answer.returncode}"
        raise PostgresUnavailable(with_log(f"The embedded PostgreSQL did not start: {reason}.", said))


def runnable(binaries: Binaries, run_as: RunAs, programs: Path) -> Binaries:
    """Return the programs, or a copy of them in the directory `programs` if the user cannot run them where they are."""
    if (run_as.uid is None and not run_as.prefix) or run_as.works(
        (binaries.program("postgres"), "--version")
    ):
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


def _failure(reason: str, log: Path) -> str:
    return with_log(f"The embedded PostgreSQL did not start: {reason}.", text_of(log))


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
        room = os.statvfs(memory)
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        in_memory = any(line.split(" ")[1:3] == [str(memory), "tmpfs"] for line in mounts.splitlines())
        if in_memory and room.f_bavail * room.f_frsize >= _ROOM_BYTES and os.access(memory, os.W_OK):
            return memory
    base = Path(tempfile.gettempdir()).resolve()
    # A private TMPDIR is no place for another account.
    return base if run_as.can_enter(base) else Path("/var/tmp")  # noqa: S108 (as above)
