import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from shlex import quote

import psycopg
import pytest

from freshpg import PostgresUnavailable, Server, start_ephemeral
from freshpg.binaries import WHEEL, Binaries, find_binaries
from freshpg.identity import Identity, possible_identities

from .support import data_directory, environment, is_alive, postmaster, python, query, wait_until

IDENTITIES = [pytest.param(identity, id=identity.name) for identity in possible_identities()]
ACCOUNTS = [identity for identity in possible_identities() if identity.uid is not None]

FORKING_OWNER = """
import os, signal, sys
from freshpg import start_ephemeral
server = start_ephemeral()
child = os.fork()
if child == 0:
    server.stop()
    signal.pause()
print(child, server.url, flush=True)
sys.stdin.read()
server.stop()
"""

OWNER = """
import sys
from freshpg import start_ephemeral
server = start_ephemeral()
print(server.url, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("identity", IDENTITIES)
def test_an_ephemeral_server_serves_and_leaves_nothing(identity: Identity) -> None:
    with start_ephemeral(identity=identity) as server:
        data = data_directory(server.url)
        pid = postmaster(data)

        assert query(server.url, "select rolsuper from pg_roles where rolname = current_user") == [(True,)]
        assert query(server.url, "show server_version") == [(server.version,)]
        assert query(server.url, "show fsync") == [("off",)]
        assert query(server.url, "show server_encoding") == [("UTF8",)]
        assert query(server.url, "show timezone") == [("UTC",)]

    assert not is_alive(pid)
    assert not data.parent.exists()


def test_stopping_twice_does_nothing_more() -> None:
    server = start_ephemeral()

    server.stop()
    server.stop()

    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url, connect_timeout=2)


@pytest.mark.parametrize("password", ["", "postgres", "wrong"])
def test_a_server_is_open_to_nobody_without_its_password(embedded: Server, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(psycopg.conninfo.make_conninfo(embedded.url, password=password))


def test_the_password_stays_out_of_what_a_traceback_shows(embedded: Server) -> None:
    assert str(psycopg.conninfo.conninfo_to_dict(embedded.url)["password"]) not in repr(embedded)


def test_a_users_settings_for_postgresql_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {
        "PGDATA": "/nonexistent",
        "PGPORT": "1",
        "PGHOST": "nowhere.invalid",
        "PGUSER": "somebody",
        "PGPASSWORD": "theirs",
        "PGTZ": "Asia/Kolkata",
        "PGOPTIONS": "-c search_path=theirs",
        "TZ": "Asia/Kolkata",
        "LC_ALL": "nowhere",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)

    with start_ephemeral() as server:
        for name in theirs:
            monkeypatch.delenv(name)
        assert query(server.url, "show timezone") == [("UTC",)]


def test_a_server_that_refuses_for_good_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c no_such_setting=1")

    with pytest.raises(PostgresUnavailable, match="unrecognized configuration parameter"):
        start_ephemeral()


def test_a_server_that_takes_no_connection_in_time_is_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # From a seed, which the first start makes.
    start_ephemeral().stop()
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setattr("freshpg.embedded.START_SECONDS", 5.0)

    with pytest.raises(PostgresUnavailable, match=r"no connection within 5 s \(.*SSL"):
        start_ephemeral()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_its_owner_however_that_ends(number: signal.Signals) -> None:
    owner = subprocess.Popen(
        python("-c", OWNER),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        data = data_directory(url)
        pid = postmaster(data)
        owner.send_signal(number)
        owner.wait(10)

        wait_until(lambda: not is_alive(pid), "the server is gone")
        wait_until(lambda: not data.parent.exists(), "the directory is gone")


@pytest.mark.parametrize("end", ["killed", "stopping"])
def test_a_forked_child_that_outlives_its_owner_neither_stops_nor_keeps_the_server(end: str) -> None:
    owner = subprocess.Popen(
        python("-c", FORKING_OWNER),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        child, url = owner.stdout.readline().split()
        data = data_directory(url)
        pid = postmaster(data)
        assert owner.stdin is not None
        if end == "killed":
            owner.kill()
        else:
            owner.stdin.close()
        try:
            wait_until(lambda: not is_alive(pid), "the server is gone", 10)
            wait_until(lambda: not data.parent.exists(), "the directory is gone", 10)
            assert is_alive(int(child))
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_server_is_stopped_at_once_though_somebody_holds_its_keepers_input() -> None:
    server = start_ephemeral()
    data = data_directory(server.url)
    held = []
    for descriptor in range(3, 128):
        with contextlib.suppress(OSError):
            held.append(os.dup(descriptor))
    started = time.monotonic()
    try:
        server.stop()
    finally:
        for descriptor in held:
            os.close(descriptor)

    assert time.monotonic() - started < 15
    assert not data.parent.exists()


def test_a_server_whose_keeper_was_killed_is_stopped_all_the_same() -> None:
    with start_ephemeral() as server:
        data = data_directory(server.url)
        pid = postmaster(data)
        parent = subprocess.run(
            ["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(parent.stdout), signal.SIGKILL)
        assert query(server.url, "select 1") == [(1,)]

    assert not is_alive(pid)
    assert not data.parent.exists()


def test_a_server_that_is_killed_leaves_no_directory_once_stopped() -> None:
    with start_ephemeral() as server:
        data = data_directory(server.url)
        os.kill(postmaster(data), signal.SIGKILL)

    assert not data.parent.exists()


def test_a_server_that_dies_at_the_start_is_reported_with_its_log(reachable: Path) -> None:
    binaries = _with_postgres(reachable, 'echo "disk on fire" >&2; exit 3')

    with pytest.raises(PostgresUnavailable, match=r"status 3\. Its log ends:\n  disk on fire$"):
        start_ephemeral(binaries, possible_identities()[0])


def test_an_initdb_that_fails_is_reported_with_its_log(reachable: Path) -> None:
    binaries = _with_postgres(reachable, "exit 0", initdb='echo "no room" >&2; exit 1')

    with pytest.raises(PostgresUnavailable, match=r"initdb failed with status 1\. Its log ends:\n  no room$"):
        start_ephemeral(binaries, possible_identities()[0])


def test_a_port_lost_in_a_race_is_replaced(reachable: Path) -> None:
    """The first start finds its port taken, as PostgreSQL says it; the second is the real one."""
    real = find_binaries()
    first = reachable / "first"
    refusal = 'echo "FATAL:  could not create any TCP/IP sockets" >&2; exit 1'
    binaries = _with_postgres(
        reachable,
        f"mkdir {quote(str(first))} 2>/dev/null && {{ {refusal}; }}\n"
        f'exec {quote(real.program("postgres"))} "$@"',
        initdb=f'exec {quote(real.program("initdb"))} "$@"',
    )
    reachable.chmod(0o777)

    with start_ephemeral(replace(binaries, version=real.version), possible_identities()[0]) as server:
        assert query(server.url, "select 1") == [(1,)]
    assert first.is_dir()


@pytest.mark.parametrize(
    "identity", [pytest.param(account, id=account.name) for account in ACCOUNTS] or IDENTITIES
)
def test_programs_out_of_the_accounts_reach_are_copied_with_their_libraries(
    identity: Identity, tmp_path: Path
) -> None:
    real = find_binaries()
    site = tmp_path / "site"
    package = real.bin.parents[1]
    shutil.copytree(package / "pginstall", site / package.name / "pginstall", symlinks=True)
    for beside in real.beside:
        shutil.copytree(beside, site / beside.name, symlinks=True)
    site.chmod(0o700)
    hidden = Binaries(
        site / package.name / "pginstall" / "bin",
        real.version,
        WHEEL,
        tuple(site / beside.name for beside in real.beside),
    )

    with start_ephemeral(hidden, identity) as server:
        directory = Path(str(query(server.url, "select setting from pg_config where name = 'BINDIR'")[0][0]))

    copied = site not in directory.parents
    assert copied == (identity.uid is not None)
    assert directory.exists() != copied


def _with_postgres(place: Path, script: str, *, initdb: str = "exit 0") -> Binaries:
    """Make programs of which `postgres` does what the script says, except to tell its version."""
    programs = place / "bin"
    programs.mkdir()
    for name, text in (("postgres", f'[ "$1" = --version ] && exit 0\n{script}'), ("initdb", initdb)):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    return Binaries(programs, "18.0", "a test")
