"""testcontainers, as its guides show it: one container for the run, create_all and drop_all around each test."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine
from suite import metadata
from testcontainers.community.postgres import PostgresContainer


@pytest.fixture(scope="session")
def server() -> Iterator[Engine]:
    container = PostgresContainer(
        "postgres:18", username="postgres", password="postgres", dbname="postgres", driver="psycopg"
    )
    container.with_command(["postgres", "-c", "fsync=off", "-c", "full_page_writes=off"])
    with container:
        yield create_engine(container.get_connection_url())


@pytest.fixture
def engine(server: Engine) -> Iterator[Engine]:
    metadata.create_all(server)
    yield server
    metadata.drop_all(server)
