"""Fixtures that the tests of the package share."""

import signal
import textwrap
from collections.abc import Iterator

import pytest

from freshpg import Server, start_ephemeral

from .processes import CONFTEST, Run, query


def pytest_configure() -> None:
    # A shell makes background processes ignore SIGINT, and their children inherit that; some tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded() -> Iterator[Server]:
    """Return a server on which a test may make roles, whatever server the run itself uses."""
    with start_ephemeral() as server:
        yield server


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
