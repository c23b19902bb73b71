"""The fixtures: what a test asks for, from a server's URL to a database of its own."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import psycopg
import pytest

from .databases import LOCK_SECONDS, Databases, Reset, TemplateUnavailable
from .keeping import is_kept
from .ledger import Tier, Use, ledger_of
from .run_state import RUN
from .server import Kind, PostgresUnavailable, sqlalchemy_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_DROP_AFTER = 16
"""So many databases that nobody needs any more are kept, until they are dropped together.

Dropping one just after its last connection waits 100 ms for the backend to go.
"""


@dataclass(frozen=True)
class ServerInfo:
    """The server that the run uses; `url` is administrative, for SQLAlchemy and psycopg alike."""

    url: str = field(repr=False)
    kind: Kind
    version: str


@dataclass
class Shelf:
    """The databases of this process: the template's copies, and those that wait to be dropped."""

    databases: Databases
    worker: str
    _numbers: Iterator[int] = field(default_factory=count)
    _done: deque[str] = field(default_factory=deque)

    def new_name(self, purpose: str) -> str:
        return f"{self.databases.prefix}{self.worker}_{purpose}{next(self._numbers)}"

    def give_back(self, name: str) -> None:
        self._done.append(name)
        if len(self._done) > 2 * _DROP_AFTER:
            self.databases.drop(self._done.popleft() for _ in range(_DROP_AFTER))

    def close(self) -> None:
        self.databases.drop(self._done)
        self.databases.close()


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> ServerInfo:
    """Return the run's server, started if this is the first that asks for it."""
    try:
        server = pytestconfig.stash[RUN].server
    except (PostgresUnavailable, pytest.UsageError) as error:
        # The same words for every test would bury them.
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
    return ServerInfo(sqlalchemy_url(server.url), server.kind, server.version)


@pytest.fixture(scope="session")
def postgres_prepare() -> Callable[[str], None]:
    """Override this: return what brings the new, empty database of this URL to the wanted schema.

    It is called once a run, whatever the number of workers, and has to close its connections.
    """
    return lambda _url: None


@pytest.fixture(scope="session")
def postgres_keep_tables() -> Iterable[str]:
    """Override this: the tables (`name` or `schema.name`) that `postgres_reset` leaves as they are."""
    return ("alembic_version",)


@pytest.fixture(scope="session")
def postgres_lock_seconds() -> float:
    """Override this: how long `postgres_reset` waits for a transaction that a test left open."""
    return LOCK_SECONDS


@pytest.fixture(scope="session")
def _postgres_shelf(
    postgres_server: ServerInfo,  # noqa: ARG001 (asked for, so that a failed start ends the run)
    pytestconfig: pytest.Config,
) -> Iterator[Shelf]:
    run = pytestconfig.stash[RUN]
    shelf = Shelf(Databases(run.server.url, run.run_id), run.worker)
    yield shelf
    shelf.close()


@pytest.fixture(scope="session")
def _postgres_template(_postgres_shelf: Shelf, postgres_prepare: Callable[[str], None]) -> str:
    try:
        return _postgres_shelf.databases.template(lambda url: postgres_prepare(sqlalchemy_url(url)))
    except TemplateUnavailable as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def postgres_database(_postgres_shelf: Shelf, _postgres_template: str) -> str:
    """Return the URL of a copy of the template, which all tests of this process share."""
    name = _postgres_shelf.new_name("shared")
    return sqlalchemy_url(_postgres_shelf.databases.create(name, _postgres_template))


@pytest.fixture(scope="session")
def _postgres_emptying(
    postgres_database: str, postgres_keep_tables: Iterable[str], postgres_lock_seconds: float
) -> Iterator[Reset]:
    url = postgres_database.replace("+psycopg", "", 1)
    reset = Reset(url, postgres_keep_tables, lock_seconds=postgres_lock_seconds)
    yield reset
    reset.close()


@contextmanager
def _noted(request: pytest.FixtureRequest, tier: Tier, name: str) -> Iterator[Use]:
    """Note in the ledger what a test uses and, for as long as the block runs, what that costs."""
    use = Use(request.node.nodeid, tier, name, "")
    ledger_of(request.config).uses.append(use)
    with _timed(use):
        yield use


@contextmanager
def _timed(use: Use) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        use.seconds += time.perf_counter() - began


@pytest.fixture
def postgres_reset(
    postgres_database: str, _postgres_emptying: Reset, request: pytest.FixtureRequest
) -> Iterator[str]:
    """Give the URL of the shared database, and empty its tables after the test: what it commits, no other test sees.

    The tables are those of the template. A table that `postgres_keep_tables` names is emptied all the same if it
    refers to one that is not (TRUNCATE ... CASCADE).
    """
    name = str(psycopg.conninfo.conninfo_to_dict(postgres_database.replace("+psycopg", "", 1))["dbname"])
    with _noted(request, "committing", name) as use:
        use.url = postgres_database.replace("+psycopg", "", 1)
    yield postgres_database
    if is_kept(name):
        request.session.shouldstop = f"the tests' shared database is kept as {request.node.name} left it"
        return
    with _timed(use):
        _postgres_emptying()


@pytest.fixture
def postgres_clone(
    _postgres_shelf: Shelf, _postgres_template: str, request: pytest.FixtureRequest
) -> Iterator[str]:
    """Give the URL of a copy of the template that is this test's own, for tests that change the schema."""
    yield from _own(request, "clone", _postgres_shelf, _postgres_template)


@pytest.fixture
def postgres_empty(_postgres_shelf: Shelf, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the URL of a new database with nothing in it, for tests that bring one to a schema."""
    yield from _own(request, "empty", _postgres_shelf)


def _own(request: pytest.FixtureRequest, tier: Tier, shelf: Shelf, *template: str) -> Iterator[str]:
    name = shelf.new_name(tier)
    with _noted(request, tier, name) as use:
        use.url = shelf.databases.create(name, *template)
    yield sqlalchemy_url(use.url)
    if not is_kept(name):
        with _timed(use):
            shelf.give_back(name)
