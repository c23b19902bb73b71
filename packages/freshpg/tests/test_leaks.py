"""What a test leaves on the server fails it, and nobody else."""

import re
import textwrap
from pathlib import Path

import pytest

from freshpg import Server

from .inner import ALONE_OR_NOT, WORKERS, run_inside
from .support import query


def errors(output: str) -> list[tuple[str, str]]:
    found = re.finditer(r"^ERROR test_it.py::(\S+) - (?:Failed: )?(.*)$", output, re.MULTILINE)
    return [(match[1], match[2]) for match in found]


def figures(output: str) -> str:
    found = re.findall(r"^PostgreSQL .*; .*$", output, re.MULTILINE)
    assert len(found) == 1, output
    return str(found[0])


@pytest.mark.parametrize("workers", ALONE_OR_NOT, ids=["alone", "workers"])
def test_a_role_fails_the_test_that_left_it(tmp_path: Path, workers: tuple[str, ...]) -> None:
    result = run_inside(
        tmp_path,
        """
        def test_leaks(postgres_server):
            run(postgres_server.url, 'create role "left behind"')

        @pytest.fixture(scope="session")
        def after_the_leak(postgres_server):
            # Or both workers' tests could have made it.
            until(lambda: run(postgres_server.url, "select 1 from pg_roles where rolname = 'left behind'"))

        @pytest.mark.parametrize("number", range(3))
        def test_cleans_up(after_the_leak, postgres_clone, number):
            run(postgres_clone, f"create role r{number}", f"drop role r{number}")
        """,
        *workers,
        "-p",
        "no:randomly",
    )

    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert errors(result.stdout) == [("test_leaks", 'Left on the server: role "left behind".')], result.stdout
    assert 'leaked: role "left behind" (test_it.py::test_leaks)' in figures(result.stdout)
    assert "4 passed, 1 error" in result.stdout


def test_among_cheap_tests_that_are_not_each_looked_at_the_one_that_left_it_is_named(tmp_path: Path) -> None:
    """Many of them end between two looks; the server remembers when the role was made."""
    result = run_inside(
        tmp_path,
        """
        @pytest.mark.parametrize("number", range(200))
        def test_it(light, number):
            if number in (50, 120):
                run(light, f"create role r{number}")
            time.sleep(0.002)
        """,
    )

    assert sorted(errors(result.stdout)) == [
        ("test_it[120]", "Left on the server: role r120."),
        ("test_it[50]", "Left on the server: role r50."),
    ]
    assert "200 passed, 2 errors" in result.stdout


def test_among_tests_that_commit_the_one_that_left_it_is_named(tmp_path: Path) -> None:
    """Their emptying looks at the server as well, and proves nothing of the cheap tests in between."""
    result = run_inside(
        tmp_path,
        """
        @pytest.mark.parametrize("number", range(120))
        def test_it(request, postgres_server, number):
            request.getfixturevalue("light" if number % 3 == 0 else "postgres_committing")
            if number in (50, 51, 52, 90):
                run(postgres_server.url, f"create role r{number}")

        def test_first(postgres_engine):
            with postgres_engine.connect():
                pass

        def test_past_the_engine(postgres_database):
            run(postgres_database, "select 1")

        def test_rolled_back(postgres_engine, postgres_server):
            run(postgres_server.url, "create role late")

        def test_last(postgres_engine):
            pass
        """,
        *("-p", "no:randomly"),
    )

    assert sorted(errors(result.stdout)) == [
        *((f"test_it[{number}]", f"Left on the server: role r{number}.") for number in (50, 51, 52, 90)),
        ("test_rolled_back", "Left on the server: role late."),
    ], result.stdout
    assert "124 passed, 5 errors" in result.stdout


def test_where_one_of_two_workers_tests_left_it_both_are_named_and_the_run_fails(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        """
        def meet(mine, other):
            here = pathlib.Path(__file__).parent
            (here / mine).touch()
            while not (here / other).exists():
                time.sleep(0.01)

        def test_one(postgres_server):
            meet("one", "two")
            run(postgres_server.url, "create role lost")
            meet("made", "two")
            meet("one", "seen")

        def test_two(postgres_server):
            meet("two", "made")
            meet("seen", "one")
        """,
        *WORKERS,
    )

    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
    found = re.search(r"leaked: role lost \((\S+) or (\S+)\)", figures(result.stdout))
    assert found is not None
    assert {found[1], found[2]} == {"test_it.py::test_one", "test_it.py::test_two"}


def test_a_worker_that_was_between_two_tests_names_none_of_its_own(tmp_path: Path) -> None:
    """It sees a thing that it did not see at its last look, and the test that it ended before made nothing."""
    meeting = """
        import pathlib, time

        def said(word):
            pathlib.Path(__file__).with_name(word).touch()

        def hear(word):
            while not pathlib.Path(__file__).with_name(word).exists():
                time.sleep(0.01)

        def pytest_runtest_logstart(nodeid):
            if nodeid.endswith("test_next"):
                said("between")
                hear("made")
        """
    (tmp_path / "meeting.py").write_text(textwrap.dedent(meeting), encoding="utf-8")
    result = run_inside(
        tmp_path,
        """
        from meeting import hear, said

        class TestHere:
            def test_leaks(self, light):
                hear("between")
                run(light, "create role lost")
                said("made")

        class TestThere:
            def test_before(self, light):
                pass

            def test_next(self, light):
                pass
        """,
        *(*WORKERS, "--dist", "loadscope", "-p", "meeting", "-p", "no:randomly"),
    )

    assert errors(result.stdout) == [("TestHere::test_leaks", "Left on the server: role lost.")], (
        result.stdout
    )
    assert "leaked: role lost (test_it.py::TestHere::test_leaks)" in figures(result.stdout)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "insert into things default values",
            r"pid \d+ \(idle in transaction\), last statement: insert into things",
        ),
        (
            "commit; select pg_advisory_lock(7)",
            r"pid \d+ \(holds an advisory lock of its session, idle\), last statement: commit; select pg_advisory_lock",
        ),
    ],
    ids=["transaction", "advisory lock"],
)
def test_an_open_session_fails_the_test_that_left_it(tmp_path: Path, statement: str, told: str) -> None:
    result = run_inside(
        tmp_path,
        f"""
        held = []

        def test_leaks(postgres_clone):
            held.append(connect(postgres_clone))
            held[0].autocommit = {statement.startswith("commit")}
            held[0].execute("{statement}")

        def test_closes(postgres_clone):
            connection = connect(postgres_clone)
            connection.autocommit = False
            connection.execute("lock table things")
            connection.execute("select pg_advisory_lock(7)")
            # The server is slower than the test to notice that it was closed.
            pid = connection.info.backend_pid
            os.kill(pid, signal.SIGSTOP)
            connection.close()
            threading.Timer(0.2, os.kill, (pid, signal.SIGCONT)).start()

        def test_last():
            held[0].close()
        """,
    )

    assert "3 passed, 1 error" in result.stdout, result.stdout
    assert re.search(rf"^Left open: {told}", result.stdout, re.MULTILINE)
    assert errors(result.stdout)[0][0] == "test_leaks"
    assert "leaked: an open session (test_it.py::test_leaks)" in figures(result.stdout)


def test_what_a_wider_fixture_makes_is_no_tests_leak(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        """
        @pytest.fixture(scope="session")
        def wide(postgres_server):
            run(postgres_server.url, "create role wide")
            yield
            run(postgres_server.url, "drop role wide")

        @pytest.mark.parametrize("number", range(3))
        def test_it(postgres_clone, wide, number):
            pass
        """,
    )

    assert result.returncode == 0, result.stdout
    assert figures(result.stdout).endswith("; nothing leaked")


def test_a_failing_test_is_not_failed_twice_and_its_leak_is_told_at_the_end(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        """
        def test_it(postgres_server):
            run(postgres_server.url, "create role lost")
            assert 0
        """,
    )

    assert "1 failed in" in result.stdout
    assert "leaked: role lost (test_it.py::test_it)" in figures(result.stdout)


def test_a_tablespace_is_one_too(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        """
        def test_it(postgres_server):
            run(postgres_server.url, "set allow_in_place_tablespaces = on", "create tablespace room location ''")
        """,
    )

    assert errors(result.stdout) == [("test_it", "Left on the server: tablespace room.")], result.stdout


def test_a_test_that_ends_the_connection_that_looks_hides_nothing_and_fails_nobody(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        """
        END = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'leaks of tests'"

        def test_first(postgres_clone):
            pass

        def test_ends(postgres_server):
            run(postgres_server.url, "create role lost", END)

        def test_last(postgres_server):
            run(postgres_server.url, END)
        """,
    )

    assert errors(result.stdout) == [("test_ends", "Left on the server: role lost.")], result.stdout
    assert "3 passed, 1 error" in result.stdout


def test_on_a_given_server_other_peoples_roles_come_and_go(tmp_path: Path, embedded: Server) -> None:
    result = run_inside(
        tmp_path,
        "def test_it(postgres_server):\n    run(postgres_server.url, 'create role theirs')\n",
        postgres=embedded.url,
    )
    query(embedded.url, "drop role theirs")

    assert result.returncode == 0, result.stdout
    # It was not looked for, and so nothing is said of it.
    assert "leaked" not in result.stdout


@pytest.mark.parametrize(
    ("statement", "workers"),
    [("insert into things default values", WORKERS), ("lock table things", ())],
    ids=["rows", "locks"],
)
def test_a_prepared_transaction_fails_the_test_that_left_it_and_is_gone(
    tmp_path: Path, statement: str, workers: tuple[str, ...]
) -> None:
    """No connection holds its locks, and so to end connections would not free the tables for the next test."""
    suite = """
        @pytest.fixture(scope="session")
        def postgres_lock_seconds():
            return 0.2

        def test_leaves(postgres_committing):
            run(postgres_committing, "begin", "STATEMENT", "prepare transaction 'left'")

        @pytest.mark.parametrize("number", range(3))
        def test_next(postgres_committing, number):
            run(postgres_committing, "begin", "set local lock_timeout = 1", "lock table things")
            assert run(postgres_committing, "select count(*) from things") == [(0,)]

        def test_ends_it(postgres_committing):
            run(postgres_committing, "begin", "STATEMENT", "prepare transaction 'ended'", "commit prepared 'ended'")
        """
    result = run_inside(tmp_path, suite.replace("STATEMENT", statement), *workers, "-p", "no:randomly")

    assert [test for test, _ in errors(result.stdout)] == ["test_leaves"], result.stdout
    told = "The prepared transaction left was left after the test, and was rolled back."
    assert result.stdout.count(told) == 1
    assert "5 passed, 1 error" in result.stdout
    assert "not as it was after test_it.py::test_leaves" in figures(result.stdout)
