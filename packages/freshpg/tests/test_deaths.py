"""A server that dies in mid-run is told once, as what it is; one connection that dies is its own test's alone."""

import errno
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from freshpg import start_ephemeral
from freshpg.death import may_be_cut_off, ran_out_of_space
from freshpg.probe import refusal_of_the_dead

from .inner import ALONE_OR_NOT, run_inside
from .support import data_directory, postmaster

SUITE = """
def end_the_server(url):
    data = pathlib.Path(run(url, "show data_directory")[0][0])
    (pathlib.Path(__file__).parent / "data").write_text(str(data))
    os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)

def test_before(postgres_clone):
    pass

{death}

@pytest.mark.parametrize("number", range(200))
def test_after(postgres_clone, postgres_committing, number):
    run(postgres_clone, "select 1")
"""
IN_A_TEST = """
def test_death(postgres_server):
    end_the_server(postgres_server.url)
    run(postgres_server.url, "select 1")
"""
IN_A_TEAR_DOWN = """
@pytest.fixture(scope="module")
def wide(postgres_server):
    with connect(postgres_server.url) as connection:
        yield
        connection.execute("select 1")

@pytest.fixture
def death(postgres_server, wide):
    yield
    end_the_server(postgres_server.url)
    run(postgres_server.url, "select 1")

def test_death(death):
    pass
"""
KILLED = r"PostgreSQL 18\S*, embedded, died in the middle of the run: the server was ended by SIGKILL\."


def bodies(output: str) -> list[str]:
    """Return the headlines of the tests that did not pass."""
    return re.findall(r"^_{3,} (.*) _{3,}$", output, re.MULTILINE)


@pytest.mark.parametrize("workers", ALONE_OR_NOT, ids=["alone", "workers"])
@pytest.mark.parametrize("death", [IN_A_TEST, IN_A_TEAR_DOWN], ids=["test", "tear-down"])
def test_a_server_that_is_killed_ends_the_run_by_one_report(
    tmp_path: Path, death: str, workers: tuple[str, ...]
) -> None:
    result = run_inside(tmp_path, SUITE.format(death=death), *workers)

    assert result.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    assert len(bodies(result.stdout)) == 1, result.stdout
    assert re.search(rf"^{KILLED}$", result.stdout, re.MULTILINE)
    assert "Its log ends:\n  20" in result.stdout
    assert re.search(rf"^!+ (xdist.dsession.Interrupted: )?{KILLED} !+$", result.stdout, re.MULTILINE)
    assert re.search(r"1 (failed|error)", result.stdout.splitlines()[-1])
    assert "Traceback" not in result.stdout + result.stderr
    assert "INTERNALERROR" not in result.stdout
    assert "isolation" not in result.stdout
    assert not Path((tmp_path / "data").read_text(encoding="utf-8")).exists()


@pytest.mark.parametrize("workers", ALONE_OR_NOT, ids=["alone", "workers"])
def test_a_given_server_that_goes_away_is_told_by_its_address(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    with start_ephemeral() as server:
        result = run_inside(tmp_path, SUITE.format(death=IN_A_TEST), *workers, postgres=server.url)

    where = re.escape(server.url.partition("@")[2])
    line = rf"The PostgreSQL server given, at {where}, died in the middle of the run: .*Connection refused.*"
    assert len(bodies(result.stdout)) == 1, result.stdout
    assert re.search(rf"^{line}$", result.stdout, re.MULTILINE)
    assert re.search(rf"^!+ (xdist.dsession.Interrupted: )?{line} !+$", result.stdout, re.MULTILINE)
    assert "Traceback" not in result.stdout
    assert server.url not in result.stdout


@pytest.mark.parametrize(
    ("death", "reports"),
    [
        ("run(postgres_server.url, f'select pg_terminate_backend({pid})')", 1),
        # PostgreSQL then ends all the others and recovers; the run's own connections are among them.
        ("os.kill(pid, signal.SIGKILL); until_lost(other)", 2),
    ],
    ids=["terminated", "killed"],
)
def test_where_one_connection_dies_the_run_goes_on(tmp_path: Path, death: str, reports: int) -> None:
    result = run_inside(
        tmp_path,
        f"""
        def test_death(postgres_clone, postgres_server):
            with connect(postgres_clone) as connection, connect(postgres_server.url) as other:
                pid = connection.info.backend_pid
                {death}
                connection.execute("select 1")

        @pytest.mark.parametrize("number", range(5))
        def test_after(postgres_clone, number):
            run(postgres_clone, "insert into things default values")
        """,
    )

    assert "test_death" in bodies(result.stdout)
    assert len(bodies(result.stdout)) <= reports
    assert re.search(r"1 failed, [45] passed", result.stdout), result.stdout
    assert "died in the middle" not in result.stdout


FULL = """
import subprocess

def test_before(postgres_clone):
    pass

def test_big(postgres_empty):
    subprocess.run(["mount", "-o", "remount,size=350m", "/dev/shm"], check=True)
    run(postgres_empty, "create table big as select repeat('x', 1000) from generate_series(1, 400000)")

@pytest.mark.parametrize("number", range(100))
def test_after(postgres_clone, number):
    run(postgres_clone, "select 1")
"""
FULL_WITHOUT_A_STATEMENT = """
import subprocess

FILLER = pathlib.Path("/dev/shm/filler")

def fill():
    subprocess.run(["dd", "if=/dev/zero", f"of={FILLER}", "bs=4k"], stderr=subprocess.DEVNULL)

def test_full(postgres_server):
    HOW

@pytest.mark.parametrize("number", range(100))
def test_after(postgres_server, number):
    pass
"""
# The first connection to a database writes a file there.
REFUSED = """
    run(postgres_server.url, "create database fresh")
    fill()
    with pytest.raises(psycopg.OperationalError, match="could not write init file") as refusal:
        connect(postgres_server.url.rpartition("/")[0] + "/fresh")
    raise refusal.value
"""
# A session without room for its log of changes takes all the others with it, and the server may find room to recover.
LOST = """
    data = pathlib.Path(run(postgres_server.url, "show data_directory")[0][0])
    leader = int((data / "postmaster.pid").read_text().splitlines()[0])
    with connect(postgres_server.url) as connection, connect(postgres_server.url) as other:
        fill()
        os.truncate(FILLER, FILLER.stat().st_size - 2**20)
        os.kill(leader, signal.SIGSTOP)
        with pytest.raises(psycopg.OperationalError):
            connection.execute(
                "select pg_logical_emit_message(false, 'x', repeat('x', 1000000)) from generate_series(1, 200)"
            )
        FILLER.unlink()
        os.kill(leader, signal.SIGCONT)
        until_lost(other)
        other.execute("select 1")
"""
PRIVATE_MEMORY = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs -o size=600m,mode=1777 tmpfs /dev/shm && exec "$@"',
    "sh",
)


@pytest.mark.parametrize("workers", ALONE_OR_NOT, ids=["alone", "workers"])
@pytest.mark.parametrize(
    "suite",
    [
        FULL,
        FULL_WITHOUT_A_STATEMENT.replace("HOW", REFUSED.strip()),
        FULL_WITHOUT_A_STATEMENT.replace("HOW", LOST.strip()),
    ],
    ids=["statement", "refused", "lost"],
)
def test_a_full_tmpfs_is_told_with_its_cure(tmp_path: Path, suite: str, workers: tuple[str, ...]) -> None:
    if subprocess.run([*PRIVATE_MEMORY, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    result = run_inside(tmp_path, suite, *workers, prefix=PRIVATE_MEMORY)

    assert result.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    assert len(bodies(result.stdout)) == 1, result.stdout
    assert re.search(
        r"^!+ .*(has|had) no room left: its data lie in /dev/shm; make that larger .*--shm-size=2g.* !+$",
        result.stdout,
        re.MULTILINE,
    )


def test_no_room_is_recognised_through_whatever_wraps_it() -> None:
    class DiskFull(Exception):  # noqa: N818 (psycopg's name)
        sqlstate = "53100"

    class Wrapped(Exception):  # noqa: N818
        orig = DiskFull()

    looped = ValueError()
    looped.__context__ = TypeError()
    looped.__context__.__context__ = looped
    chained = RuntimeError()
    chained.__cause__ = Wrapped()

    assert ran_out_of_space(DiskFull())
    assert ran_out_of_space(chained)
    assert not ran_out_of_space(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert not ran_out_of_space(looped)
    assert not ran_out_of_space(None)
    assert not may_be_cut_off(DiskFull())
    assert not may_be_cut_off(looped)


@pytest.mark.parametrize("state", [12345, b"53100", print])
def test_what_another_error_calls_sqlstate_is_passed_over(state: object) -> None:
    error = type("Other", (Exception,), {"sqlstate": state})()

    assert not ran_out_of_space(error)
    assert not may_be_cut_off(error)


@pytest.mark.parametrize(
    "failure",
    [
        'connection.execute("select %s, %s", (1,))',
        'connection.close(); connection.execute("select 1")',
        'connection.execute("select pg_terminate_backend(pg_backend_pid())")',
        'psycopg.connect("postgresql://x@127.0.0.1:1/x")',
    ],
)
def test_a_statement_that_speaks_of_room_makes_no_end_of_others_failures(
    tmp_path: Path, failure: str
) -> None:
    result = run_inside(
        tmp_path,
        f"""
        def test_words(postgres_clone):
            with pytest.raises(psycopg.Error):
                run(postgres_clone, "do $$ begin raise exception 'FATAL: No space left on device'; end $$")

        def test_failure(postgres_clone):
            with connect(postgres_clone) as connection:
                {failure}

        def test_after(postgres_clone):
            run(postgres_clone, "select 1")
        """,
        "-p",
        "no:randomly",
    )

    assert "1 failed, 2 passed" in result.stdout, result.stdout
    assert "no room left" not in result.stdout


def test_a_server_that_refuses_or_is_silent_is_not_dead() -> None:
    with start_ephemeral() as server:
        leader = postmaster(data_directory(server.url))
        assert refusal_of_the_dead(server.url.replace("postgres:", "postgres:wrong"), far=True) is None
        os.kill(leader, signal.SIGSTOP)
        try:
            # The kernel takes the connection, and nobody answers.
            assert refusal_of_the_dead(server.url, far=False) is None
        finally:
            os.kill(leader, signal.SIGCONT)
        os.kill(leader, signal.SIGKILL)
        refusal = refusal_of_the_dead(server.url, far=False)

    assert refusal is not None
    assert "Connection refused" in refusal
