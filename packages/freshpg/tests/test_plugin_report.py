"""What the plugin says of failed tests and dead servers, and what it keeps or leaves behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
import sqlalchemy  # noqa: F401 (imported here, so that runs in this process do not import it each time)

from freshpg import Server, database_url, ensure_database
from freshpg.docker_client import EngineUnavailable, find_engine

from .processes import CONFTEST, Run, accepts_tcp, is_alive, query, wait_until


def test_failed_test_shows_how_to_open_its_database_without_a_password(run: Run, embedded: Server) -> None:
    result = run("def test_it(postgres_url):\n    assert 0\n", "--showlocals")

    result.stdout.fnmatch_lines(["psql 'user=postgres dbname=test_*_main host=127.0.0.1 port=*'"])
    password = str(psycopg.conninfo.conninfo_to_dict(embedded.url)["password"])
    assert password not in result.stdout.str()


@pytest.mark.parametrize("option", ["--pdb", "--trace"])
def test_debugger_shows_how_to_open_the_database(
    run: Run, pytester: pytest.Pytester, embedded: Server, option: str
) -> None:
    run("def test_it(postgres_url): assert 0\n")
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--postgres", embedded.url, option)
    result = pytester.run(*command, stdin=b"c\n")

    result.stdout.fnmatch_lines(["psql 'user=postgres dbname=test_*_main *", "(Pdb)*"])


def test_debugger_does_not_show_a_database_that_is_reset(
    run: Run, pytester: pytest.Pytester, embedded: Server
) -> None:
    run(
        """
        import psycopg
        left = []
        def test_it(postgres_url):
            left.append(psycopg.connect(postgres_url))
            left[0].execute("select 1")
        """
    )
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--postgres", embedded.url, "--pdb")
    result = pytester.run(*command, stdin=b"c\n")

    result.stdout.fnmatch_lines(["*left a transaction open*", "(Pdb)*"])
    result.stdout.no_fnmatch_line("psql *")


def test_kept_databases_are_as_the_tests_left_them(run: Run, embedded: Server) -> None:
    result = run(
        """
        def test_fails(postgres_url, postgres_new_database):
            run(postgres_url, "insert into things (name) values ('kept')")
            run(postgres_new_database(), "insert into things (name) values ('further')")
            assert 0

        def test_after(postgres_url):
            assert run(postgres_url, "table things") == []
        """,
        "--keep-database",
    )
    result.assert_outcomes(passed=1, failed=1)
    names = re.findall(r"^psql .*dbname=(\S+) .*  # \S+::test_fails$", result.stdout.str(), re.MULTILINE)
    rows = [query(database_url(embedded.url, name), "select name from things") for name in names]
    # A later run takes them for nobody's orphans.
    run("def test_it(postgres_url): pass\n").assert_outcomes(passed=1)
    for name in names:
        query(embedded.url, f"drop database {name}")
    assert sorted(rows) == [[("further",)], [("kept",)]]
    result.stdout.fnmatch_lines(["They stay until you drop them."])


def test_server_with_a_kept_database_runs_until_it_is_ended(run: Run) -> None:
    result = run("def test_it(postgres_url): assert 0\n", "--keep-database", postgres="embedded", apart=True)

    found = re.search(r"^The server keeps running; kill (\d+) ends it\.$", result.stdout.str(), re.MULTILINE)
    url = re.search(r"^psql (\S+)  # ", result.stdout.str(), re.MULTILINE)
    assert found is not None, result.stdout.str()
    assert url is not None
    assert result.stdout.str().count("psql ") == 1
    try:
        assert query(url[1], "select name from revision") == [("head",)]
    finally:
        os.kill(int(found[1]), signal.SIGTERM)
    wait_until(lambda: not is_alive(int(found[1])), "the supervisor has ended")


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "workers"])
def test_death_of_the_server_ends_the_run_with_one_line(run: Run, workers: tuple[str, ...]) -> None:
    result = run(
        """
        import signal

        def test_kills(postgres_url):
            data = pathlib.Path(run(postgres_url, "show data_directory")[0][0])
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            while True:  # until it raises, because the server ends a moment later
                run(postgres_url, "select 1")

        @pytest.mark.parametrize("number", range(20))
        def test_more(postgres_url, number):
            run(postgres_url, "select 1")
        """,
        *workers,
        postgres="embedded",
        apart=True,
    )
    assert result.parseoutcomes().get("failed", 0) + result.parseoutcomes().get("errors", 0) <= 2
    assert re.search(r"PostgreSQL [\d.]+, embedded, died during the run: ", result.stdout.str())
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


AGAIN = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    runtestprotocol(item, log=False, nextitem=nextitem)
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
"""Runs each test twice, as pytest-rerunfailures does, and reports the second time."""


def test_transaction_that_a_test_leaves_open_when_it_is_run_again_fails_it(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(CONFTEST + AGAIN)
    result = run(
        """
        held = []

        def test_fails_and_then_forgets(postgres_url):
            held.append(psycopg.connect(postgres_url))
            held[-1].execute("insert into things (name) values ('a')")
            if len(held) == 1:
                held.pop().close()
                held.append(None)
                assert 0

        def test_after(postgres_url):
            held[-1].close()
        """
    )
    result.assert_outcomes(passed=2, errors=1)


def test_last_line_says_why_the_kept_databases_could_not_be_asked_for(run: Run) -> None:
    result = run(
        """
        def test_it(postgres_url, postgres_server):
            ours = "select pid from pg_stat_activity where datname = 'postgres' and pid <> pg_backend_pid()"
            run(postgres_server.url, f"select pg_terminate_backend(pid, 5000) from ({ours}) as ours")
        """
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["terminating connection due to administrator command"])


WAITS = """
import os, pathlib, time

def test_waits(postgres_url):
    pathlib.Path("half").write_text(f"{os.getpid()} {postgres_url}")
    pathlib.Path("half").rename("waits")
    time.sleep(60)
"""


@contextmanager
def waiting(pytester: pytest.Pytester, *options: str) -> Iterator[tuple["subprocess.Popen[bytes]", int, str]]:
    """Lend a run of pytest in the middle of a test, the process that runs the test, and its URL."""
    path = pytester.makepyfile(test_waits=WAITS)
    command = [sys.executable, "-m", "pytest", str(path), "-p", "no:cacheprovider", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_until((pytester.path / "waits").exists, "the test waits", 60)
        worker, url = (pytester.path / "waits").read_text(encoding="utf-8").split()
        path.unlink()
        yield process, int(worker), url


def test_killed_runs_databases_are_dropped_by_the_next_run_and_no_others(
    run: Run, pytester: pytest.Pytester, embedded: Server
) -> None:
    foreign = ensure_database(embedded.url, "test_0123456789_main")
    with waiting(pytester, "--postgres", embedded.url) as (process, _, url):
        run("def test_it(postgres_url): pass\n").assert_outcomes(passed=1)
        query(url, "select 1")
        process.kill()
    # The killed run's session holds a lock that marks its databases as in use.
    locks = "select count(*) from pg_locks where locktype = 'advisory'"
    wait_until(lambda: query(embedded.url, locks) == [(0,)], "the killed run's session ends")
    result = run("def test_it(postgres_url): pass\n")

    found = query(embedded.url, r"select datname from pg_database where datname like 'test\_%'")
    query(foreign, "select 1")
    query(embedded.url, "drop database test_0123456789_main")
    assert found == [("test_0123456789_main",)]
    result.stdout.fnmatch_lines(["Dropped databases of a killed run: test_*_main, test_*_template"])


@pytest.mark.parametrize("victim", ["pytest", "worker"])
@pytest.mark.parametrize("kind", ["embedded", "docker"])
def test_nothing_is_left_when_a_process_is_killed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, kind: str, victim: str
) -> None:
    if kind == "docker":
        try:
            find_engine().close()
        except EngineUnavailable as error:
            pytest.skip(error.reason)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makeconftest(CONFTEST)
    with waiting(pytester, "--postgres", kind, "-n", "1", "--max-worker-restart", "0") as (
        process,
        worker,
        url,
    ):
        os.kill(process.pid if victim == "pytest" else worker, signal.SIGKILL)
        process.wait(60)
        place = psycopg.conninfo.conninfo_to_dict(url)

        wait_until(
            lambda: not accepts_tcp(str(place["host"]), int(str(place["port"]))), "the server is gone", 60
        )
        wait_until(lambda: not is_alive(worker), "the worker is gone", 60)
