"""Ours: the tier that the benchmark asks for, with the project's own engine and migrations."""

import os
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from backend.database import connect
from benchmarks.isolation.peers.schema import bring_to_head

TIER = os.environ["BENCH_TIER"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        if "postgres_engine" in item.fixturenames:
            item.add_marker(pytest.mark.postgres(TIER))


@pytest.fixture(scope="session")
def postgres_prepare() -> Callable[[str], None]:
    return bring_to_head


@pytest.fixture(scope="session")
def postgres_connect() -> Callable[..., Engine]:
    return connect


@pytest.fixture(scope="session")
def plain(request: pytest.FixtureRequest) -> Iterator[Engine]:
    # Not named as an argument, or what our plugin does around a test with a database would be in the baseline as well.
    engine = connect(request.getfixturevalue("postgres_database"))
    yield engine
    engine.dispose()
