"""Plain testcontainers: one container for the run, in memory, durability off; create_all and drop_all a test."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from testcontainers.community.postgres import PostgresContainer

from backend.database import connect
from backend.models.models import Base

SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def new_container() -> PostgresContainer:
    container = PostgresContainer(
        "postgres:18",
        username="postgres",
        password="benchmark",  # noqa: S106  of a server that lives for a minute
        dbname="benchmark",
        driver="psycopg",
    )
    container.with_tmpfs_mount("/var/lib/postgresql", "rw")
    container.with_command(["postgres", *(word for setting in SETTINGS for word in ("-c", setting))])
    return container


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with new_container() as container:
        engine = connect(container.get_connection_url())
        yield engine
        engine.dispose()


@pytest.fixture
def postgres_engine(engine: Engine) -> Iterator[Engine]:
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)


@pytest.fixture(scope="session")
def plain(engine: Engine) -> Engine:
    Base.metadata.create_all(engine)
    return engine
