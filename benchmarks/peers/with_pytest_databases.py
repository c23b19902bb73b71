"""pytest-databases: one container for the run, and every table truncated after a test, because it has no isolation.

It accepts no command for its container, so ALTER SYSTEM turns durability off, and the data are on disk.
"""

from collections.abc import Iterator

import pytest
from pytest_databases.docker.postgres import PostgresService
from sqlalchemy import URL, Engine, create_engine, text
from suite import metadata

pytest_plugins = ["pytest_databases.docker.postgres"]


@pytest.fixture(scope="session")
def migrated(postgres_18_service: PostgresService) -> Engine:
    it = postgres_18_service
    engine = create_engine(
        URL.create("postgresql+psycopg", it.user, it.password, it.host, it.port, it.database)
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    metadata.create_all(engine)
    return engine


@pytest.fixture
def engine(migrated: Engine) -> Iterator[Engine]:
    yield migrated
    with migrated.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY CASCADE"))
