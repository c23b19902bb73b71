import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from freshpg import PostgresUnavailable, find_binaries, find_binaries_of, running, start_persistent
from freshpg.run_as import RunAs, possible_users

from .processes import LIBPQ, is_alive, open_directory, owner, postmaster, query, show, wait_until

USERS = [pytest.param(user, id=user.name) for user in possible_users()]

OWNER = """
import sys
from pathlib import Path
from freshpg import start_persistent
server = start_persistent(Path(sys.argv[1]))
print(server.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as path:
        yield path / ".dev" / "postgres-18"


@pytest.mark.parametrize("user", USERS)
def test_data_password_and_port_are_kept_between_runs(directory: Path, user: RunAs) -> None:
    with start_persistent(directory, run_as=user) as first:
        query(first.url, "create table kept as select 42 as answer")
        pid = postmaster(directory / "data")
        assert show(first.url, "fsync") == ["on"]
    assert not is_alive(pid)

    # Another user of those that are possible here takes the data over.
    with start_persistent(directory) as second:
        assert second.url == first.url
        assert query(second.url, "table kept") == [(42,)]
    assert (directory / ".gitignore").read_text(encoding="utf-8") == "*\n"
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]
    assert stat.S_IMODE((directory / "password").stat().st_mode) == 0o600


def test_what_is_in_a_directory_that_exists_is_not_hidden_from_git(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "notes").touch()
    start_persistent(directory).stop()

    assert not (directory / ".gitignore").exists()


def test_a_running_server_is_shared_and_not_stopped_by_its_guest(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert running(directory) is None
    with start_persistent(directory) as host:
        with monkeypatch.context() as patch:
            for name, value in LIBPQ.items():
                patch.setenv(name, value)
            guest = start_persistent(directory)
        with guest:
            assert (guest.url, guest.version) == (host.url, host.version)

        found = running(directory)
        assert found is not None
        assert query(found.url, "select 1") == [(1,)]
    assert running(directory) is None


def test_a_server_without_a_free_connection_is_left_alone_and_that_is_said_within_seconds(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshpg.persistent._SETTINGS", ("max_connections=5",))
    monkeypatch.setattr("freshpg.persistent.ANSWER_SECONDS", 2.0)
    with start_persistent(directory) as host, ExitStack() as taken:
        pid = postmaster(directory / "data")
        connection = taken.enter_context(psycopg.connect(host.url, autocommit=True))
        # The sessions of the start itself may be on their way out.
        sessions = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        wait_until(lambda: connection.execute(sessions).fetchone() == (1,), "they are gone")
        for _ in range(4):
            taken.enter_context(psycopg.connect(host.url))
        with pytest.raises(PostgresUnavailable, match=r"cannot be reached: .*too many clients") as refusal:
            start_persistent(directory)

        assert "left alone" in str(refusal.value)
        assert running(directory) is not None
        assert connection.execute("select 1").fetchone() == (1,)
        assert postmaster(directory / "data") == pid


def test_a_killed_owner_takes_its_server_along_and_the_data_stay(directory: Path) -> None:
    with owner(OWNER, str(directory)) as (process, url):
        query(url, "create table kept as select 42 as answer")
        pid = postmaster(directory / "data")
        # Held still, so that the next start meets it on its way out.
        os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait(10)
    release = threading.Timer(1, os.kill, [pid, signal.SIGCONT])
    release.start()

    with start_persistent(directory) as server:
        assert query(server.url, "table kept") == [(42,)]
        assert postmaster(directory / "data") != pid
    release.join()
    assert not is_alive(pid)


def test_the_directory_is_in_use_until_initdb_ends_even_if_its_owner_was_killed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshpg.persistent.ANSWER_SECONDS", 60)
    command = [sys.executable, "-c", OWNER, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        wait_until((directory / "data.making" / "base").exists, "initdb works")
        os.killpg(process.pid, signal.SIGSTOP)
        process.kill()
    # A pause, in which the supervisor goes, which holds the lock too: it is nobody's child here, so nothing can wait.
    time.sleep(0.5)
    assert running(directory) is not None
    os.killpg(process.pid, signal.SIGCONT)

    with start_persistent(directory) as server:
        assert query(server.url, "select 1") == [(1,)]


def test_a_port_that_is_taken_meanwhile_is_replaced(directory: Path) -> None:
    with start_persistent(directory) as server:
        port = psycopg.conninfo.conninfo_to_dict(server.url)["port"]
    with socket.create_server(("127.0.0.1", int(str(port)))), start_persistent(directory) as server:
        assert psycopg.conninfo.conninfo_to_dict(server.url)["port"] != port
        assert query(server.url, "select 1") == [(1,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can reach the data of another user")
def test_the_data_of_another_user_are_refused(directory: Path) -> None:
    (directory / "data").mkdir(parents=True)
    os.chown(directory / "data", 4321, 4321)

    with pytest.raises(PostgresUnavailable, match=r"belong to another user \(uid 4321\)"):
        start_persistent(directory)


def test_a_directory_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(
        PostgresUnavailable, match=r"^Cannot write to .*/file/kept: Not a directory; use .*\.$"
    ):
        start_persistent(tmp_path / "file" / "kept")


def test_the_programs_of_the_datas_version_are_used_if_they_are_installed(directory: Path) -> None:
    preferred = find_binaries().major
    other = next(
        filter(None, (find_binaries_of(major) for major in range(15, 30) if major != preferred)), None
    )
    if other is None:
        pytest.skip("the programs of one version only are installed")
    start_persistent(directory, other).stop()

    with start_persistent(directory) as server:
        assert server.version == other.version


def test_data_of_a_version_without_programs_are_refused(directory: Path) -> None:
    start_persistent(directory).stop()
    (directory / "data" / "PG_VERSION").write_text("9\n", encoding="utf-8")

    with pytest.raises(
        PostgresUnavailable, match=r"holds data of PostgreSQL 9.*\nInstall PostgreSQL 9 to use"
    ):
        start_persistent(directory)


def test_a_server_that_is_slow_to_answer_is_waited_for_and_not_restarted(directory: Path) -> None:
    with start_persistent(directory) as host:
        pid = postmaster(directory / "data")
        os.kill(pid, signal.SIGSTOP)
        awakening = threading.Timer(1, os.kill, [pid, signal.SIGCONT])
        awakening.start()

        with start_persistent(directory) as guest:
            assert guest.url == host.url

        awakening.join()
        assert postmaster(directory / "data") == pid


def test_start_that_fails_leaves_no_server(directory: Path) -> None:
    start_persistent(directory).stop()
    (directory / "password").write_text("wrong", encoding="utf-8")

    with pytest.raises(PostgresUnavailable, match="password authentication failed"):
        start_persistent(directory)

    assert running(directory) is None
    (directory / "password").unlink()
    with pytest.raises(PostgresUnavailable, match="remove the directory to start again"):
        start_persistent(directory)
