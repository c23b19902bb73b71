"""Servers from binaries on this machine: ephemeral ones that leave nothing, persistent ones that keep their data."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from .binaries import Binaries, find_binaries
from .identity import Identity, preferred_identity
from .keeper_process import KeeperProcess
from .leaks import LEAK_SETTINGS
from .log import LOG_SETTINGS
from .server import PostgresUnavailable, Server, local_url, server_version

SUPERUSER = "postgres"
START_SECONDS = 120.0
_POLL_SECONDS = 0.002
_ROOM_BYTES = 512 * 1024 * 1024

_LOCAL_ONLY = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200")
_NOT_DURABLE = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    # Among the data, which go with the server: segments of a server that is killed would stay in /dev/shm for ever.
    "dynamic_shared_memory_type=mmap",
    *LOG_SETTINGS,
    *LEAK_SETTINGS,
)


@dataclass(frozen=True)
class Place:
    """Where a server keeps what, and which of it is made at the start."""

    directory: Path
    data: Path
    log: Path
    programs: Path
    """Where to copy the programs, if the identity cannot reach them where they are."""
    password: str
    port: int = 0
    ephemeral: bool = True
    initialise: bool = True


def start_ephemeral(binaries: Binaries | None = None, identity: Identity | None = None) -> Server:
    """Start a new server, in memory where there is room, that leaves nothing when it or this process ends.

    Durability is off: what a crash would lose is lost anyway. Raises PostgresUnavailable.
    """
    binaries = binaries or find_binaries()
    identity = identity or preferred_identity()
    name = f"postgres-{secrets.token_hex(8)}"
    directory = _ephemeral_base(identity) / name
    place = Place(
        directory,
        data=directory / "data",
        log=directory / "log",
        password=secrets.token_urlsafe(24),
        # Not beside the data, for where those are in memory programs often may not run.
        programs=Path("/var/tmp") / f"{name}-programs",  # noqa: S108 (its name is random, and it must not exist)
    )
    return launch(place, binaries, identity)


def launch(place: Place, binaries: Binaries, identity: Identity) -> Server:
    """Have a keeper initialise and start a server at this place, and wait until it takes connections."""
    copies: list[tuple[str, str]] = []
    if not identity.works((binaries.program("postgres"), "--version")):
        binaries, copies = _copied(binaries, place)
    keeper = KeeperProcess(_order(place, binaries, identity, copies))
    try:
        url = _wait_until_ready(keeper, place)
        version = server_version(url)
    except BaseException:
        keeper.stop()
        raise
    return Server(
        url,
        version,
        "embedded",
        keeper.stop,
        log=str(place.log),
        autopsy=keeper.autopsy,
        hand_over=keeper.hand_over if place.ephemeral else None,
    )


def _copied(binaries: Binaries, place: Place) -> tuple[Binaries, list[tuple[str, str]]]:
    """Plan a copy of the programs, with what lies beside them at the same distance."""
    if not binaries.may_be_copied:
        raise PostgresUnavailable(f"The account that PostgreSQL runs as cannot run {binaries.bin}/postgres.")
    target = place.programs / binaries.version
    installation = binaries.bin.parent
    root = installation.parent.parent
    copies = []
    if not target.exists():
        copies = [(str(source), str(source.relative_to(root))) for source in (installation, *binaries.beside)]
    return replace(binaries, bin=target / binaries.bin.relative_to(root)), copies


def _order(
    place: Place, binaries: Binaries, identity: Identity, copies: list[tuple[str, str]]
) -> dict[str, Any]:
    settings = _LOCAL_ONLY + (_NOT_DURABLE if place.ephemeral else ())
    return {
        "make": [str(place.directory)] if place.ephemeral else [],
        "remove": [str(place.directory), str(place.programs)] if place.ephemeral else [],
        "copies": copies,
        "programs": str(place.programs / binaries.version),
        "data": str(place.data),
        "making": f"{place.data}.making",
        "log": str(place.log),
        "password": place.password,
        "port": place.port,
        "prefix": identity.prefix,
        "account": None if identity.uid is None else (identity.uid, identity.gid),
        "owner": identity.owner,
        "environment": _environment(),
        "initdb": _initdb(binaries, ephemeral=place.ephemeral) if place.initialise else None,
        "server": [binaries.program("postgres"), *(word for text in settings for word in ("-c", text))],
    }


def _initdb(binaries: Binaries, *, ephemeral: bool) -> list[str]:
    command = [
        binaries.program("initdb"),
        f"--username={SUPERUSER}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
    ]
    if ephemeral:
        command.append("--no-sync")
    if binaries.major >= 17:  # noqa: PLR2004 (the first with a provider that is the same everywhere)
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        command.append("--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C")
    if binaries.major >= 16:  # noqa: PLR2004 (the first that knows the setting)
        # The password is long and random: many rounds of hashing protect nothing, and cost a connection 3 ms.
        command += ["--set=scram_iterations=1"]
    return command


def _environment() -> dict[str, str]:
    """Return the environment without what would change the server: its messages are read, its time zone is UTC."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _ephemeral_base(identity: Identity) -> Path:
    memory = Path("/dev/shm")  # noqa: S108 (the directory made there is of mode 0700 and has a random name)
    with suppress(OSError):
        room = os.statvfs(memory)
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        in_memory = any(line.split(" ")[1:3] == [str(memory), "tmpfs"] for line in mounts.splitlines())
        if in_memory and room.f_bavail * room.f_frsize >= _ROOM_BYTES and os.access(memory, os.W_OK):
            return memory
    base = Path(tempfile.gettempdir()).resolve()
    if not identity.can_enter(base):
        base = Path("/var/tmp")  # noqa: S108 (as above; a private TMPDIR is no place for another account)
    return base


def _wait_until_ready(keeper: KeeperProcess, place: Place) -> str:
    """Poll by real connections, watching for what the keeper says; return the administrative URL."""
    deadline = time.monotonic() + START_SECONDS
    url = refusal = None
    while (left := deadline - time.monotonic()) > 0:
        line = keeper.line(left if url is None else _POLL_SECONDS)
        if line is not None:
            word, _, rest = line.partition(" ")
            if word == "ended":
                raise PostgresUnavailable(_death(place, rest))
            url = local_url(int(rest), SUPERUSER, place.password)
        if url is not None and (refusal := refusal_of(url)) is None:
            return url
    raise PostgresUnavailable(_death(place, no_connection(START_SECONDS, refusal)))


def no_connection(seconds: float, refusal: str | None) -> str:
    """Say that a server took no connection in time, and why it did not take the last one."""
    return f"it took no connection within {seconds:.0f} s" + (f" ({refusal})" if refusal else "")


def refusal_of(url: str) -> str | None:
    """Try to connect, once; return what libpq says if that fails, and None if it does not.

    Raises PostgresUnavailable where the server is up and refuses for a reason that waiting does not change.
    """
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError as error:
        text = str(error)
        # Somebody else's server may have taken the port just before ours, and knows another password.
        passing = ("starting up", "shutting down", "not yet accepting", "password authentication failed")
        if "FATAL" in text and not any(words in text for words in passing):
            raise PostgresUnavailable(
                f"The new server refuses the connection: {text.splitlines()[0]}"
            ) from None
        return text.strip().splitlines()[-1].strip() if text.strip() else type(error).__name__
    return None


def _death(place: Place, reason: str) -> str:
    try:
        log = place.log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        log = ""
    tail = "\n".join(f"  {line}" for line in log.splitlines()[-20:])
    return f"The embedded PostgreSQL did not start: {reason}." + (f" Its log ends:\n{tail}" if tail else "")
