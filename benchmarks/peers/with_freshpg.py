"""freshpg: real commits, and a reset after each test."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, create_engine
from suite import metadata

from freshpg import sqlalchemy_url


@pytest.fixture(scope="session")
def postgres_migrate() -> Callable[[str], None]:
    return lambda url: metadata.create_all(create_engine(sqlalchemy_url(url)))


@pytest.fixture
def engine(postgres_engine: Engine) -> Engine:
    return postgres_engine
