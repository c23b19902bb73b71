"""The pytest plugin: one PostgreSQL server for the run, a database for each worker, a reset after each test.

The server is chosen when tests are about to run, and started at first use. With xdist the controller starts it before
the workers and hands them its URL. Nothing is looked for if no test runs (`--collect-only`, `--help`, `--fixtures`).
"""

import shlex
from argparse import Namespace
from collections.abc import Generator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, pq

if pytest.version_tuple < (8, 4):
    raise pytest.UsageError(f"freshpg needs pytest 8.4 or newer; this is {pytest.__version__}.")

from .libpq import database_url, last_line, place_of
from .run_state import ENVIRONMENT, RUN, SETTINGS, URL_VARIABLE, Run
from .server import Server
from .server_selection import DEFAULT_IMAGE

# Named and not imported: pytest warns of a plugin that is imported before it can rewrite it.
pytest_plugins = [f"{__package__}.fixtures"]

_FIXTURES = frozenset({"postgres_server", "postgres_url", "postgres_engine", "postgres_new_database"})

_LEFTOVERS = "postgres_leftovers"
_NO_TEST_RUNS = (
    "collectonly",
    "showfixtures",
    "show_fixtures_per_test",
    "cacheshow",
    "setupplan",
    "markers",
    "help",
    "version",
)
_MISSING_EXTENSION = ("58P01", "0A000")
"""undefined_file and feature_not_supported: a CREATE EXTENSION without its files fails with one of them."""
_EXTENSION_HINT = (
    "If a CREATE EXTENSION failed: the embedded PostgreSQL comes without some extensions (uuid-ossp, pgcrypto, xml2, "
    "sslinfo); --postgres docker has them."
)
_FAILED = pytest.StashKey[bool]()
_SERVER_FAILURE = pytest.StashKey[str]()


class LeftOpenWarning(UserWarning):
    """A test left a transaction open, and postgres_leftovers is `warn`."""


def _tests_will_run(options: Namespace) -> bool:
    return not any(getattr(options, name, False) for name in _NO_TEST_RUNS)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("postgres", "PostgreSQL")
    group.addoption(
        "--postgres",
        metavar="auto|docker|embedded|URL",
        help="the server to test on; auto, the default, is Docker, else PostgreSQL programs on this machine "
        f"(${URL_VARIABLE}, if set, is the default instead)",
    )
    group.addoption(
        "--postgres-image", metavar="IMAGE", default=DEFAULT_IMAGE, help="Docker image (default: %(default)s)"
    )
    group.addoption(
        "--keep-database",
        action="store_true",
        help="keep the databases of failed tests and the server; the end of the run says how to open and end them",
    )
    parser.addini(
        ENVIRONMENT,
        "variables to set before collection, for code that connects by itself: DATABASE_URL, or libpq's PGHOST, "
        "PGPORT, PGUSER, PGPASSWORD, PGDATABASE",
        type="args",
    )
    parser.addini(
        SETTINGS, "settings of servers that are started, as name=value, one a line", type="linelist"
    )
    parser.addini(_LEFTOVERS, "a test that leaves a transaction open: error or warn", default="error")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set what `postgres_environment` names before a conftest.py is imported, for it may import the code under test."""
    options = early_config.known_args_namespace
    _make_run(early_config, options).set_environment(is_started=_tests_will_run(options))


def pytest_configure(config: pytest.Config) -> None:
    if (leftovers := config.getini(_LEFTOVERS)) not in ("error", "warn"):
        raise pytest.UsageError(f"{_LEFTOVERS} has to be error or warn, not {leftovers!r}.")
    if RUN not in config.stash:  # a conftest.py loaded the plugin
        _make_run(config, config.option)


def _make_run(config: pytest.Config, options: Namespace) -> Run:
    run = config.stash[RUN] = Run(config, options)
    # Unlike pytest_unconfigure, this is called if a conftest.py cannot be imported, too.
    config.add_cleanup(run.end)
    return run


def pytest_itemcollected(item: pytest.Item) -> None:
    names: list[str] = getattr(item, "fixturenames", [])
    if item.config.getini(ENVIRONMENT) and "postgres_url" not in names:
        # The code under test has its URL, and the database has to be there.
        names.insert(0, "postgres_url")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    run = session.config.stash[RUN]
    if _tests_will_run(session.config.option) and not run.is_worker:
        # If there is no server, the run ends here with a usage error, before the header.
        _ = run.choice


def pytest_report_header(config: pytest.Config) -> str | None:
    run = config.stash[RUN]
    return run.choice.announcement if _tests_will_run(config.option) and not run.is_worker else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Start the server before the workers."""
    if _tests_will_run(config.option):
        config.stash[RUN].hand_to_workers()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    result = yield
    if fixturedef.scope != "function":
        # A database that a wider fixture makes is no single test's.
        request.config.stash[RUN].expect_databases()
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # A test may be run again, by pytest-rerunfailures.
    item.stash[_FAILED] = False
    item.config.stash[RUN].is_reset = False


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Reset after all fixtures of the test are torn down, for they may write too."""
    try:
        yield
    finally:
        run = item.config.stash[RUN]
        if run.started is not None and _SERVER_FAILURE not in item.session.stash and _may_have_used(item):
            _reset(item, run)


def _may_have_used(item: pytest.Item) -> bool:
    """Tell whether the test may have used a database: by a fixture that it asks for, directly or not."""
    names: list[str] = getattr(item, "fixturenames", [])
    # What has `request` may ask for fixtures by name while it runs.
    return not _FIXTURES.isdisjoint(names) or "request" in names


def _reset(item: pytest.Item, run: Run) -> None:
    failed = item.stash.get(_FAILED, False)
    left_open = run.after_test(item.nodeid, keep=failed and item.config.getoption("--keep-database"))
    # A failed test's traceback holds its sessions open.
    if left_open and not failed:
        text = f"The test left a transaction open, which was ended: {'; '.join(left_open)}."
        if item.config.getini(_LEFTOVERS) == "warn":
            item.warn(LeftOpenWarning(text))
        else:
            pytest.fail(f"{text} Close sessions and connections.", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    server = item.config.stash[RUN].started
    if not report.failed or server is None or not _may_have_used(item):
        return report
    if _SERVER_FAILURE in item.session.stash:
        # What a dead server does to the teardown of the same test is no news.
        report.outcome, report.longrepr = "passed", None
    elif failure := _server_failure(server):
        item.session.stash[_SERVER_FAILURE] = failure
        report.longrepr = failure
        item.session.shouldfail = failure
    elif not item.stash.get(_FAILED, False):
        item.stash[_FAILED] = True
        error = call.excinfo.value if call.excinfo is not None else None
        # The end of the run says how to open a database that is kept.
        databases = [] if item.config.getoption("--keep-database") else item.config.stash[RUN].in_use()
        if lines := _failure_lines(databases, server, error):
            report.sections.append(("PostgreSQL", "\n".join(lines)))
    return report


def pytest_enter_pdb(config: pytest.Config) -> None:
    """Say how to open the databases of the test that the debugger looks at."""
    run, reporter = config.stash[RUN], config.pluginmanager.get_plugin("terminalreporter")
    if run.started is not None and reporter is not None:
        for name in run.in_use():
            reporter.write_line(_psql(run.started, name))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    run = config.stash[RUN]
    server = run.started
    if run.is_worker or server is None:
        return
    try:
        lines = list(_closing_lines(run, server))
    except psycopg.Error as error:
        lines = [_server_failure(server) or last_line(error)]
    for line in lines:
        terminalreporter.write_line(line)


def _failure_lines(databases: list[str], server: Server, error: BaseException | None) -> list[str]:
    """Return how to open the databases of a failed test, and what may help."""
    lines = [_psql(server, name) for name in databases]
    if lines:
        lines.append(
            "After the test the database is reset, and at the end of the run it is gone; --keep-database keeps it."
        )
    # SQLAlchemy and Django raise their own errors from the driver's; psycopg and asyncpg name the code alike.
    errors = (error, getattr(error, "__cause__", None))
    is_missing = any(getattr(each, "sqlstate", None) in _MISSING_EXTENSION for each in errors)
    if server.kind == "embedded" and is_missing:
        lines.append(_EXTENSION_HINT)
    return lines


def _psql(server: Server, database: str) -> str:
    """Return the command that opens a database; without the password if the server was given."""
    url = database_url(server.url, database)
    if server.kind != "given":
        return f"psql {shlex.quote(url)}"
    known = {name: value for name, value in conninfo.conninfo_to_dict(url).items() if "password" not in name}
    return f"psql {shlex.quote(conninfo.make_conninfo('', **known))}"


def _server_failure(server: Server) -> str | None:
    """Return what became of a server that does not answer any more, on one line; None if it answers."""
    if pq.PGconn.ping(conninfo.make_conninfo(server.url, connect_timeout=5).encode()) != pq.Ping.NO_RESPONSE:
        return None
    death = server.describe_death() or "it does not answer"
    where = f"at {place_of(server.url)}" if server.kind == "given" else server.kind
    return f"PostgreSQL {server.version}, {where}, died during the run: {death}"


def _closing_lines(run: Run, server: Server) -> Iterator[str]:
    """Say which server it was, and what is kept on it."""
    yield from run.notes
    kept = run.databases.kept()
    for name, test in kept.items():
        yield f"{_psql(server, name)}  # {test}"
    if kept:
        end = server.leave_running()
        yield f"The server keeps running; {end} ends it." if end else "They stay until you drop them."
    boot = f", started in {run.boot_seconds:.2f} s" if server.kind != "given" else ""
    yield f"PostgreSQL {server.version}, {server.kind}{boot}"
