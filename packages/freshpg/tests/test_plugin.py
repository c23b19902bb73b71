"""The plugin from outside: a small project, and a run of pytest on it."""

import re
import socket
from pathlib import Path

import pytest
import sqlalchemy  # noqa: F401 (imported here, so that runs in this process do not import it each time)

from freshpg import Server

from .processes import CONFTEST, Run, accepts_tcp, query

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


def test_further_database_that_cannot_be_dropped_does_not_prevent_the_reset(
    run: Run, embedded: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A superuser is connected to it, and the tests' role may not end that session."""
    query(embedded.url, "create role modest login createdb password 'modest'")
    monkeypatch.setenv("SUPERUSER", embedded.url)
    result = run(
        """
        held = []

        def test_it(postgres_url, postgres_new_database):
            run(postgres_url, "insert into things (name) values ('a')")
            name = psycopg.conninfo.conninfo_to_dict(postgres_new_database(empty=True))["dbname"]
            held.append(psycopg.connect(os.environ["SUPERUSER"], dbname=name))

        def test_after(postgres_url):
            held[0].close()
            assert run(postgres_url, "table things") == []
        """,
        postgres=f"postgresql://modest:modest@{embedded.url.partition('@')[2]}",
    )
    query(embedded.url, "drop role modest")

    result.assert_outcomes(passed=2, errors=1)


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
    # It was reset before this was reported.
    result.stdout.no_fnmatch_line("psql *")


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
        r"^PostgreSQL [\d.]+, embedded, started in \d+\.\d\d s$", result.stdout.str(), re.MULTILINE
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


def test_plugin_that_is_named_instead_of_found_loads_without_a_warning(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = run("def test_it(postgres_url): pass\n", "-p", "freshpg.plugin", apart=True)

    result.assert_outcomes(passed=1)


def test_wrong_value_of_postgres_leftovers_is_refused(run: Run) -> None:
    result = run("def test_it(): pass\n", ini="postgres_leftovers = ignore", apart=True)

    result.stderr.fnmatch_lines(["ERROR: postgres_leftovers has to be error or warn, not 'ignore'."])


@pytest.mark.parametrize("ini", ["", "postgres_environment = DATABASE_URL"])
def test_server_that_is_too_old_is_refused_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, ini: str
) -> None:
    """The server is as new as any; what freshpg needs is injected."""
    monkeypatch.setattr("freshpg.run_state._OLDEST", 99)
    result = run("def test_it(postgres_url): pass\n", ini=ini)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = (
        r"freshpg needs PostgreSQL 99 or newer; this is PostgreSQL [\d.]+, given \(.*\), as --postgres says\."
    )
    assert re.search(said, result.stdout.str() + result.stderr.str())
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_server_ends_if_a_conftest_fails_to_import(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "import os, pathlib\npathlib.Path('port').write_text(os.environ['PGPORT'])\nraise ImportError('broken')"
    )
    result = run("def test_it(): pass\n", postgres="embedded", ini="postgres_environment = PGPORT")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not accepts_tcp("127.0.0.1", int((pytester.path / "port").read_text(encoding="utf-8")))
