"""Fixtures of the project's tests: a real PostgreSQL at head, the engine, and clients of the application."""

import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from backend.config import Settings
from backend.database import SessionLocal, connect, init_db
from backend.tests.application import TOKEN, Connect, make_app
from backend.utc import pin_utc
from freshpg import sqlalchemy_url


def pytest_configure() -> None:
    # A shell makes its background processes ignore Ctrl-C, and child processes inherit that; some tests send Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def bare_environment() -> Iterator[None]:
    """Hide the developer's own settings: an empty value in the environment also hides the one in `.env`."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)
        for name in Settings.model_fields:
            monkeypatch.setenv(name.upper(), "")
        yield


@pytest.fixture(scope="session")
def postgres_migrate() -> Callable[[str], None]:
    def bring_to_head(url: str) -> None:
        engine = connect(sqlalchemy_url(url))
        init_db(engine)
        engine.dispose()

    return bring_to_head


@pytest.fixture(scope="session")
def postgres_create_engine() -> Connect:
    return connect


@pytest.fixture(scope="session")
def engine(postgres_engine: Engine) -> Engine:
    """Return the engine on a database at head. A test may change it in any way; it is reset afterwards."""
    return postgres_engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with SessionLocal(bind=engine) as session:
        yield session


@pytest.fixture(scope="session")
def client(engine: Engine, bare_environment: None) -> Iterator[TestClient]:
    """Return a client of the application without a token; unhandled exceptions are raised in the test."""
    # Starting the application takes longer than most tests.
    with TestClient(make_app(engine)) as client:
        yield client


@pytest.fixture
def guarded(engine: Engine) -> TestClient:
    """Return a client without credentials of an application that requires `TOKEN`."""
    return TestClient(make_app(engine, api_token=TOKEN))


@pytest.fixture
def empty_url(postgres_new_database: Callable[..., str]) -> str:
    """Return the URL of an empty database."""
    return postgres_new_database(empty=True)


@pytest.fixture
def empty_engine(empty_url: str) -> Iterator[Engine]:
    """Return an engine on an empty database."""
    engine = connect(sqlalchemy_url(empty_url))
    yield engine
    engine.dispose()


@pytest.fixture
def connect_pinned(postgres_url: str) -> Iterator[Connect]:
    """Return a function that applies `pin_utc` to a bare engine, so that nothing else can set the zone."""
    engines: list[Engine] = []

    def connect(**options: Any) -> Engine:
        engines.append(pin_utc(create_engine(sqlalchemy_url(postgres_url), **options)))
        return engines[-1]

    yield connect
    for engine in engines:
        engine.dispose()


@pytest.fixture
def unused_port() -> Iterator[int]:
    """Return a port on loopback on which nothing listens, and which nobody can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def configured(empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Configure an empty database, and return its engine."""
    monkeypatch.setenv("DATABASE_URL", empty_engine.url.render_as_string(hide_password=False))
    return empty_engine
