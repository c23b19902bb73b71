"""The plugin from outside: a small project, a run of pytest on it, and what it says."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy  # noqa: F401 (imported here, so that runs in this process do not import it each time)

from freshpg import Server, database_url, ensure_database
from freshpg.docker_client import EngineUnavailable, find_engine

from .processes import accepts_tcp, is_alive, query, wait_until

CONFTEST = """
import psycopg, pytest

def run(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

@pytest.fixture(scope="session")
def postgres_migrate():
    def migrate(url):
        with open("migrated", "a") as file:
            print(url, file=file)
        run(url, "create table things (id int generated always as identity, name text not null)")
        run(url, "create table revision as select 'head' as name")
    return migrate
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, embedded: Server, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs pytest on a test module, on a server that is given."""
    for name in ("TEST_DATABASE_URL", "CI", "FORCE_COLOR", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.setenv("COLUMNS", "200")
    pytester.makeconftest(CONFTEST)

    def run(
        module: str, *arguments: str, ini: str = "", postgres: str = "", apart: bool = False
    ) -> pytest.RunResult:
        pytester.makeini(f"[pytest]\nfilterwarnings = error\n{ini}")
        pytester.makepyfile(
            "import os, pathlib, psycopg, pytest\nfrom conftest import run\n" + textwrap.dedent(module)
        )
        options = ["-p", "no:randomly", "-p", "no:cacheprovider", *arguments]
        if postgres != "unset":
            options += ["--postgres", postgres or embedded.url]
        if apart:
            return pytester.runpytest_subprocess(*options, timeout=120)
        return pytester.runpytest_inprocess(*options)

    return run


@pytest.fixture
def databases(embedded: Server) -> Iterator[list[object]]:
    """Check that the server has the same databases afterwards."""
    statement = "select datname from pg_database order by 1"
    before = query(embedded.url, statement)
    yield [name for (name,) in before]
    assert query(embedded.url, statement) == before


COMMITTING = """
@pytest.mark.parametrize("number", range(4))
def test_rows(postgres_url, number):
    assert run(postgres_url, "insert into things (name) values ('a') returning id") == [(1,)]
    assert run(postgres_url, "table revision") == [("head",)]

@pytest.mark.parametrize("number", range(2))
def test_schema(postgres_url, number):
    run(postgres_url, "drop table things")
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_every_test_finds_the_database_as_migrated_once(
    run: Run, pytester: pytest.Pytester, databases: list[object], workers: tuple[str, ...]
) -> None:
    result = run(COMMITTING, *workers, apart=bool(workers))

    result.assert_outcomes(passed=6)
    assert len((pytester.path / "migrated").read_text(encoding="utf-8").splitlines()) == 1
    result.stdout.fnmatch_lines(["PostgreSQL *, given (127.0.0.1:*/postgres), as --postgres *"])
    assert re.search(r"^PostgreSQL [\d.]+, given$", result.stdout.str(), re.MULTILINE)


def test_url_is_the_same_for_the_whole_of_a_worker_and_writes_of_fixtures_are_reset(run: Run) -> None:
    result = run(
        """
        @pytest.fixture(scope="session")
        def app(postgres_url):
            return postgres_url

        @pytest.fixture
        def leaving(app):
            yield
            run(app, "insert into things (name) values ('torn down')")

        @pytest.mark.parametrize("number", range(3))
        def test_it(app, leaving, postgres_url, number):
            assert postgres_url == app
            assert run(app, "select count(*) from things") == [(0,)]

        def test_dynamic(request):
            run(request.getfixturevalue("app"), "insert into things (name) values ('x')")

        def test_last(app):
            assert run(app, "insert into things (name) values ('x') returning id") == [(1,)]
        """
    )
    result.assert_outcomes(passed=5)


def test_engine_is_one_and_recovers_when_the_database_was_replaced(run: Run) -> None:
    result = run(
        """
        from sqlalchemy import text
        engines = set()

        @pytest.mark.parametrize("number", range(3))
        def test_it(postgres_engine, number):
            engines.add(id(postgres_engine))
            assert len(engines) == 1 and postgres_engine.driver == "psycopg"
            with postgres_engine.begin() as connection:
                connection.execute(text("alter table things add column number int"))
        """
    )
    result.assert_outcomes(passed=3)


def test_asynchronous_engine_is_refused_in_a_sentence(run: Run) -> None:
    result = run(
        """
        class AsyncEngine:
            def __init__(self, url): pass

        @pytest.fixture(scope="session")
        def postgres_create_engine():
            return AsyncEngine

        def test_it(postgres_engine): pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*postgres_create_engine returned AsyncEngine, *of postgres_url."])


def test_further_databases_are_dropped_after_the_test(run: Run, databases: list[object]) -> None:
    result = run(
        """
        def test_it(postgres_new_database, postgres_server):
            copy, empty = postgres_new_database(), postgres_new_database(empty=True)
            assert run(copy, "table revision") == [("head",)]
            assert run(empty, "select count(*) from pg_class where relname = 'things'") == [(0,)]
            count = "select count(*) from pg_database where datname like '%_new_'"
            assert run(postgres_server.url, count) == [(2,)]

        def test_after(postgres_server):
            count = "select count(*) from pg_database where datname like '%_new_'"
            assert run(postgres_server.url, count) == [(0,)]
        """
    )
    result.assert_outcomes(passed=2)


FORGETS = """
held = []

def test_forgets(postgres_url):
    held.append(psycopg.connect(postgres_url))
    held[0].execute("insert into things (name) values ('a')")

def test_after(postgres_url):
    held[0].close()
    assert run(postgres_url, "table things") == []
"""


def test_open_transaction_fails_its_own_test_by_name(run: Run) -> None:
    result = run(FORGETS)

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_forgets*", "The test left a transaction open*insert into things*"]
    )


def test_open_transaction_can_be_a_warning(run: Run) -> None:
    result = run(FORGETS, "-W", "default", ini="postgres_leftovers = warn")

    result.assert_outcomes(passed=2, warnings=1)


def test_server_of_ours_has_the_settings_loses_databases_and_is_gone_afterwards(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    result = run(
        """
        @pytest.fixture(scope="module")
        def wide(postgres_server):
            run(postgres_server.url, "create database wide")

        @pytest.mark.parametrize("number", range(2))
        def test_it(postgres_url, wide, number):
            run(postgres_url, "create database made")
            assert run(postgres_url, "show work_mem") == [("7MB",)]
            assert run(postgres_url, "select count(*) from pg_database where datname = 'wide'") == [(1,)]
            pathlib.Path("data").write_text(run(postgres_url, "show data_directory")[0][0])

        def test_extension(postgres_url):
            run(postgres_url, 'create extension "uuid-ossp"')
        """,
        postgres="embedded",
        ini="postgres_settings = work_mem=7MB",
    )
    result.assert_outcomes(passed=2, failed=1)
    assert not Path((pytester.path / "data").read_text(encoding="utf-8")).exists()
    result.stdout.fnmatch_lines(["If a CREATE EXTENSION failed: *--postgres docker has them."])
    assert re.search(
        r"^PostgreSQL [\d.]+, embedded, started in \d\.\d\d s$", result.stdout.str(), re.MULTILINE
    )


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_code_that_connects_as_it_is_imported_finds_its_variables(
    run: Run, pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makeconftest(
        "import os\nIMPORTED, NAME = os.environ['DATABASE_URL'], os.environ['PGDATABASE']\n" + CONFTEST
    )
    module = """
        from conftest import IMPORTED, NAME

        @pytest.mark.parametrize("number", range(4))
        def test_it(number):
            assert run(IMPORTED, "insert into things (name) values ('a') returning id") == [(1,)]
            with psycopg.connect("") as connection:
                assert connection.info.dbname == NAME
                assert NAME in IMPORTED
        """
    ini = "postgres_environment = DATABASE_URL PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE"
    run(module, *workers, ini=ini, apart=True).assert_outcomes(passed=4)
    assert run(module, "--collect-only", ini=ini, postgres="embedded", apart=True).ret == 0


def test_failed_test_shows_how_to_open_its_database_without_a_password(run: Run, embedded: Server) -> None:
    result = run("def test_it(postgres_url):\n    assert 0\n", "--showlocals")

    result.stdout.fnmatch_lines(["psql 'user=postgres dbname=test_*_main host=127.0.0.1 port=*'"])
    password = str(psycopg.conninfo.conninfo_to_dict(embedded.url)["password"])
    assert password not in result.stdout.str()


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
        import signal, time

        def test_kills(postgres_url):
            data = pathlib.Path(run(postgres_url, "show data_directory")[0][0])
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            time.sleep(0.5)
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
        process.wait(15)
        place = psycopg.conninfo.conninfo_to_dict(url)

        wait_until(lambda: not accepts_tcp(str(place["host"]), int(str(place["port"]))), "the server is gone")
        wait_until(lambda: not is_alive(worker), "the worker is gone")


def test_variable_names_the_server_and_the_option_wins(
    run: Run, embedded: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", embedded.url)
    result = run("def test_it(postgres_url): pass\n", postgres="unset")
    result.stdout.fnmatch_lines(["PostgreSQL *, given *, as TEST_DATABASE_URL *"])
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql://127.0.0.1:1/none")
    run("def test_it(postgres_url): pass\n").assert_outcomes(passed=1)


@pytest.mark.parametrize("option", ["--collect-only", "--fixtures", "--help"])
def test_nothing_is_looked_for_if_no_test_runs(run: Run, option: str) -> None:
    """The server would accept the connection and never answer, so that any attempt shows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = f"postgresql://u:p@127.0.0.1:{listener.getsockname()[1]}/d"
        result = run("def test_it(postgres_url): pass\n", option, postgres=url)

        assert result.ret == 0
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_wrong_value_of_postgres_leftovers_is_refused(run: Run) -> None:
    result = run("def test_it(): pass\n", ini="postgres_leftovers = ignore", apart=True)

    result.stderr.fnmatch_lines(["ERROR: postgres_leftovers has to be error or warn, not 'ignore'."])
