"""What the project's tests stand on: a real PostgreSQL at head, the engine, and the application on both."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from backend.config import Settings
from backend.database import SessionLocal, connect, init_db
from backend.tests.application import TOKEN, Connect, make_app
from backend.tests.loopback import free_port
from backend.utc import pin_utc


def pytest_configure() -> None:
    # A shell has what it starts in the background ignore Ctrl-C, and all that comes of it; some tests press it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def bring_to_head(url: str) -> None:
    engine = connect(url)
    try:
        init_db(engine)
    finally:
        engine.dispose()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's own settings: an empty value in the environment also hides what `.env` says."""
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")


@pytest.fixture(scope="session")
def postgres_prepare() -> Callable[[str], None]:
    return bring_to_head


@pytest.fixture(scope="session")
def postgres_connect() -> Connect:
    return connect


@pytest.fixture
def database(postgres_engine: Engine) -> Engine:
    """Give the engine on the database of the test's tier; whatever is committed is gone after the test."""
    return postgres_engine


@pytest.fixture
def session(database: Engine) -> Iterator[Session]:
    with SessionLocal(bind=database) as session:
        yield session


@pytest.fixture(scope="session")
def _clients() -> Iterator[tuple[ExitStack, dict[int, TestClient]]]:
    with ExitStack() as stack:
        yield stack, {}


@pytest.fixture
def client(database: Engine, _clients: tuple[ExitStack, dict[int, TestClient]]) -> TestClient:
    """Give a client of the application without a token; what goes wrong inside is raised in the test."""
    # Starting the application takes longer than most tests, and the engine is one, whatever database it is on.
    stack, clients = _clients
    if id(database) not in clients:
        clients[id(database)] = stack.enter_context(TestClient(make_app(database)))
    return clients[id(database)]


@pytest.fixture
def guarded(database: Engine) -> TestClient:
    """Give a client, itself without credentials, of an application that wants `TOKEN`."""
    return TestClient(make_app(database, api_token=TOKEN))


@pytest.fixture
def clone(postgres_clone: str, postgres_engine: Engine) -> Engine:
    """Give the engine on a database that is this test's own."""
    return postgres_engine


@pytest.fixture
def empty(postgres_empty: str, postgres_engine: Engine) -> Engine:
    """Give the engine on a database with nothing in it."""
    return postgres_engine


@pytest.fixture
def postgres_url(postgres_clone: str) -> str:
    """Give the URL of a database at head, which is this test's to change in any way."""
    return postgres_clone


@pytest.fixture
def engine(postgres_clone: str, postgres_engine: Engine) -> Engine:
    """Give the engine on the database of `postgres_url`."""
    return postgres_engine


@pytest.fixture
def empty_engine(postgres_empty: str, postgres_engine: Engine) -> Engine:
    """Give the engine on a database with nothing in it."""
    return postgres_engine


@pytest.fixture
def connect_pinned(postgres_database: str) -> Iterator[Connect]:
    """Give `pin_utc` on a bare engine, so that nothing else can be what holds the zone."""
    engines: list[Engine] = []

    def connect(**options: Any) -> Engine:  # noqa: ANN401 - create_engine's
        engines.append(pin_utc(create_engine(postgres_database, **options)))
        return engines[-1]

    yield connect
    for engine in engines:
        engine.dispose()


@pytest.fixture
def unused_port() -> int:
    """Give a port of loopback on which nobody listens."""
    return free_port()


@pytest.fixture
def target(postgres_clone: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database at head with nothing in it, which the settings name."""
    monkeypatch.setenv("DATABASE_URL", postgres_clone)
    engine = connect(postgres_clone)
    yield engine
    engine.dispose()
