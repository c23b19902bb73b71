"""The fixtures: what a test asks for, from the server to an engine on the worker's database."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest

from .libpq import sqlalchemy_url
from .run_state import RUN, Migrate
from .server import Server

if TYPE_CHECKING:
    from sqlalchemy import Engine


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Server:
    """Return the run's server: `url` (administrative), `kind` and `version`. The first to ask starts it."""
    try:
        return pytestconfig.stash[RUN].server
    except pytest.UsageError as error:
        # Every other test would fail with the same words.
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def postgres_migrate() -> Migrate:
    """Override this: return a function that brings the new, empty database of a URL to the wanted schema and rows.

    It is called once a run, however many workers there are; its connections are ended afterwards.
    """
    return lambda _url: None


@pytest.fixture(scope="session")
def postgres_create_engine() -> Callable[[str], "Engine"]:
    """Override this: return a function that makes a synchronous SQLAlchemy engine for a `postgresql+psycopg://` URL."""
    try:
        from sqlalchemy import create_engine  # noqa: PLC0415 (only this needs SQLAlchemy)
    except ImportError:
        pytest.fail("postgres_engine needs SQLAlchemy; install it, or use postgres_url.", pytrace=False)
    return create_engine


@pytest.fixture(scope="session")
def postgres_url(postgres_server: Server, postgres_migrate: Migrate, pytestconfig: pytest.Config) -> str:
    """Return the `postgresql://` URL of this worker's database, the same for the whole run.

    Tests commit to it for real. After each test the database is taken back to what `postgres_migrate` made.
    """
    del postgres_server  # asked for because it says in one line why there is none
    return pytestconfig.stash[RUN].create_database(postgres_migrate)


@pytest.fixture(scope="session")
def postgres_engine(
    postgres_url: str, postgres_create_engine: Callable[[str], "Engine"], pytestconfig: pytest.Config
) -> Iterator["Engine"]:
    """Return this worker's one SQLAlchemy engine on the database of `postgres_url`."""
    engine: object = postgres_create_engine(sqlalchemy_url(postgres_url))
    from sqlalchemy import Engine  # noqa: PLC0415 (only this needs SQLAlchemy)

    if not isinstance(engine, Engine) or engine.dialect.is_async:
        pytest.fail(
            f"postgres_create_engine returned {type(engine).__name__}, which is not a synchronous Engine. An "
            f"asynchronous engine belongs to one event loop: make it in a fixture of your own, of postgres_url.",
            pytrace=False,
        )
    pytestconfig.stash[RUN].on_disconnect = engine.dispose
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_new_database(
    postgres_server: Server, postgres_migrate: Migrate, pytestconfig: pytest.Config
) -> Callable[..., str]:
    """Return a function that makes a further database, dropped after the test, and returns its URL.

    It is a copy of the template, or with `empty=True` has nothing in it.
    """
    del postgres_server
    return partial(pytestconfig.stash[RUN].new_database, postgres_migrate)
