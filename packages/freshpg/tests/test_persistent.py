import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest

from freshpg import PostgresUnavailable, running, start_persistent
from freshpg.binaries import find_binaries
from freshpg.identity import Identity, possible_identities

from .support import data_directory, environment, is_alive, postmaster, python, query

IDENTITIES = [pytest.param(identity, id=identity.name) for identity in possible_identities()]

OWNER = """
import sys
from pathlib import Path
from freshpg import start_persistent
server = start_persistent(Path(sys.argv[1]))
print(server.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(kept: Path) -> Path:
    return kept / ".dev" / "postgres-18"


@pytest.mark.parametrize("identity", IDENTITIES)
def test_data_password_and_port_are_kept_between_runs(directory: Path, identity: Identity) -> None:
    with start_persistent(directory, identity=identity) as first:
        query(first.url, "create table kept as select 42 as answer")
        pid = postmaster(data_directory(first.url))
        assert query(first.url, "show fsync") == [("on",)]
    assert not is_alive(pid)

    with start_persistent(directory, identity=identity) as second:
        assert second.url == first.url
        assert query(second.url, "table kept") == [(42,)]

    assert (directory.parent / ".gitignore").read_text(encoding="utf-8") == "*\n"
    assert stat.S_IMODE((directory / "password").stat().st_mode) == 0o600


def test_identities_may_take_turns_on_the_same_data(directory: Path) -> None:
    with start_persistent(directory, identity=possible_identities()[0]) as server:
        query(server.url, "create table kept as select 42 as answer")

    for identity in reversed(possible_identities()):
        with start_persistent(directory, identity=identity) as server:
            assert query(server.url, "table kept") == [(42,)]


def test_the_data_of_an_ordinary_user_stay_that_users_when_root_serves_them(directory: Path) -> None:
    with start_persistent(directory) as server:
        query(server.url, "create table kept as select 42 as answer")
    user = 4321 if os.geteuid() == 0 else os.geteuid()
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)

    with start_persistent(directory) as server:
        assert query(server.url, "table kept") == [(42,)]

    assert {path.lstat().st_uid for path in (directory, *directory.rglob("*"))} == {user}


def test_a_directory_that_cannot_be_made_is_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(PostgresUnavailable, match=r"^.*/file/kept cannot be made: Not a directory\.$"):
        start_persistent(tmp_path / "file" / "kept")


def test_a_server_that_runs_is_shared_and_not_stopped_by_its_guest(directory: Path) -> None:
    assert running(directory) is None
    with start_persistent(directory) as owner:
        with start_persistent(directory) as guest:
            assert guest.url == owner.url

        assert query(owner.url, "select 1") == [(1,)]
        found = running(directory)
        assert found is not None
        assert found.url == owner.url

    assert running(directory) is None


def test_data_that_a_killed_run_left_half_made_are_made_anew(directory: Path) -> None:
    making = directory / "data.making"
    making.mkdir(parents=True)
    (making / "PG_VERSION").write_text("18\n", encoding="utf-8")
    (directory / "password").write_text("of the killed run\n", encoding="utf-8")

    with start_persistent(directory) as server:
        assert query(server.url, "select 1") == [(1,)]

    assert not making.exists()


def test_a_killed_owner_takes_its_server_along_and_the_data_stay(directory: Path) -> None:
    owner = subprocess.Popen(
        python("-c", OWNER, str(directory)),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        query(url, "create table kept as select 42 as answer")
        pid = postmaster(data_directory(url))
        # Held still, so that it is on its way out for as long as the next start needs to meet it there.
        os.kill(pid, signal.SIGSTOP)
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
    (directory / "port.json").unlink()
    release = threading.Timer(0.5, os.kill, [pid, signal.SIGCONT])
    release.start()

    with start_persistent(directory) as server:
        assert query(server.url, "table kept") == [(42,)]

    release.join()
    assert not is_alive(pid)


def test_a_server_that_was_killed_recovers(directory: Path) -> None:
    with start_persistent(directory) as server:
        query(server.url, "create table kept as select 42 as answer")
        os.kill(postmaster(data_directory(server.url)), signal.SIGKILL)

    with start_persistent(directory) as server:
        assert query(server.url, "table kept") == [(42,)]


def test_a_port_that_was_taken_meanwhile_is_replaced(directory: Path) -> None:
    directory.mkdir(parents=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (directory / "port.json").write_text(f'{{"port": {port}}}', encoding="utf-8")

        with start_persistent(directory) as server:
            assert _port(server.url) != port
            assert query(server.url, "select 1") == [(1,)]


def test_the_server_of_the_directory_that_this_is_a_copy_of_is_not_taken_for_ours(directory: Path) -> None:
    """A checkout that was copied whole has the other's port and password."""
    with start_persistent(directory) as server:
        copy = directory.with_name("copy")
        copy.mkdir()
        for name in ("password", "port.json"):
            shutil.copy(directory / name, copy)

        assert running(copy) is None
        with start_persistent(copy) as other:
            assert _port(other.url) != _port(server.url)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_where_the_server_cannot_reach_the_directory_its_data_lie_elsewhere(
    tmp_path: Path, identity: Identity
) -> None:
    """As root with an account of its own, below a private home; every other identity reaches its own directory."""
    private = tmp_path / "home"
    private.mkdir(mode=0o700)
    directory = private / "postgres-18"
    try:
        with start_persistent(directory, identity=identity) as server:
            notes = server.notes
            query(server.url, "create table kept as select 42 as answer")
        with start_persistent(directory, identity=identity) as server:
            assert server.notes == ()
            assert query(server.url, "table kept") == [(42,)]

        moved = (directory / "data").is_symlink()
        data = (directory / "data").resolve()
        assert moved == (identity.uid is not None)
        assert len(notes) == moved
        assert all(str(data) in note for note in notes)
        assert data.stat().st_uid == identity.owner[0]
        assert stat.S_IMODE(data.stat().st_mode) == 0o700

        if moved:
            shutil.rmtree(data)
            with start_persistent(directory, identity=identity) as server:
                assert "which is gone" in server.notes[0]
    finally:
        shutil.rmtree((directory / "data").resolve().parent)


def test_data_of_another_major_version_are_refused_with_the_cure(directory: Path) -> None:
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "PG_VERSION").write_text("9\n", encoding="utf-8")
    version = find_binaries().version

    with pytest.raises(PostgresUnavailable) as refusal:
        start_persistent(directory)

    assert f"holds the data of PostgreSQL 9, and the programs here are {version}" in str(refusal.value)
    assert f"remove {directory} to begin anew" in str(refusal.value)


def _port(url: str) -> int:
    return int(str(psycopg.conninfo.conninfo_to_dict(url)["port"]))
