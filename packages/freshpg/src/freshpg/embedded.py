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

from . import cache
from .binaries import Binaries, find_binaries
from .identity import Identity, preferred_identity
from .keeper_process import KeeperProcess
from .ready import NotReady, no_connection, version_if_ready
from .seeds import NO_SEEDS, Seeds, secret_of, seeds_for
from .server import PostgresUnavailable, Server, local_url
from .settings import LEAK_SETTINGS, LOG_SETTINGS, TEST_SETTINGS

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
    *TEST_SETTINGS,
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
    seeds: Seeds = NO_SEEDS


def start_ephemeral(
    binaries: Binaries | None = None, identity: Identity | None = None, *, template: str | None = None
) -> Server:
    """Start a new server, in memory where there is room, that leaves nothing when it or this process ends.

    Durability is off: what a crash would lose is lost anyway. It grows from a cached seed where there is one, and from
    one with a template database in it if that was made from what `template` is a digest of. Raises PostgresUnavailable.
    """
    return start_kept(binaries or find_binaries(), identity or preferred_identity(), template)[0]


def start_kept(
    binaries: Binaries, identity: Identity, template: str | None, *, new_seed: Path | None = None
) -> tuple[Server, KeeperProcess]:
    """Do as `start_ephemeral` says, and return the keeper as well, which can make the data the new seed."""
    seeds = replace(
        seeds_for(binaries.version, initdb_command(binaries, ephemeral=True), template), at_end=new_seed
    )
    name = f"postgres-{secrets.token_hex(8)}"
    directory = _ephemeral_base(identity) / name
    place = Place(
        directory,
        data=directory / "data",
        log=directory / "log",
        password=secrets.token_urlsafe(24),
        seeds=seeds,
        # Not beside the data, for where those are in memory programs often may not run.
        programs=Path("/var/tmp") / f"{name}-programs",  # noqa: S108 (its name is random, and it must not exist)
    )
    known = any(os.path.exists(seed["path"]) for seed in seeds.choices)  # noqa: PTH110 (a plain question)
    started = launch(place, binaries, identity)
    if not known:
        cache.prune()
    return started


def launch(place: Place, binaries: Binaries, identity: Identity) -> tuple[Server, KeeperProcess]:
    """Have a keeper initialise and start a server at this place, and wait until it takes connections."""
    copies: list[tuple[str, str]] = []
    if not identity.works((binaries.program("postgres"), "--version")):
        binaries, copies = _copied(binaries, place)
    keeper = KeeperProcess(_order(place, binaries, identity, copies))
    try:
        url, version = _wait_until_ready(keeper, place)
    except BaseException:
        keeper.stop()
        raise
    server = Server(
        url,
        version,
        "embedded",
        keeper.stop,
        log=str(place.log),
        autopsy=keeper.autopsy,
        hand_over=keeper.hand_over if place.ephemeral else None,
    )
    return server, keeper


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
        "initdb": initdb_command(binaries, ephemeral=place.ephemeral) if place.initialise else None,
        "seeds": place.seeds.choices,
        "unseeded": place.seeds.unseeded,
        "store": place.seeds.store and str(place.seeds.store),
        "store_at_end": place.seeds.at_end and str(place.seeds.at_end),
        "secret": secret_of(place.password),
        "server": [binaries.program("postgres"), *(word for text in settings for word in ("-c", text))],
    }


def initdb_command(binaries: Binaries, *, ephemeral: bool) -> list[str]:
    command = [
        binaries.program("initdb"),
        f"--username={SUPERUSER}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
    ]
    if ephemeral:
        command.append("--no-sync")
        if binaries.major >= 18:  # noqa: PLR2004 (the first that has them unless told)
            # They protect data that are kept, and a seed's password could not be replaced under them.
            command.append("--no-data-checksums")
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


def _wait_until_ready(keeper: KeeperProcess, place: Place) -> tuple[str, str]:
    """Poll by real connections, watching for what the keeper says; return the administrative URL and the version."""
    deadline = time.monotonic() + START_SECONDS
    url = None
    refusal: str | None = None
    while (left := deadline - time.monotonic()) > 0:
        line = keeper.line(left if url is None else _POLL_SECONDS)
        if line is not None:
            word, _, rest = line.partition(" ")
            if word == "ended":
                raise PostgresUnavailable(_death(place, rest))
            if word == "broken":
                seed, _, reason = rest.partition("\t")
                print(f"The cached {seed} is of no use and is removed: {reason}.", file=sys.stderr)  # noqa: T201  for a person
                url = None
                continue
            url = local_url(int(rest), SUPERUSER, place.password)
        if url is not None:
            try:
                return url, version_if_ready(url)
            except NotReady as error:
                refusal = str(error)
    raise PostgresUnavailable(_death(place, no_connection(START_SECONDS, refusal)))


def _death(place: Place, reason: str) -> str:
    try:
        log = place.log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        log = ""
    tail = "\n".join(f"  {line}" for line in log.splitlines()[-20:])
    return f"The embedded PostgreSQL did not start: {reason}." + (f" Its log ends:\n{tail}" if tail else "")
