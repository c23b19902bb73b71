"""py-pglite: PostgreSQL in WebAssembly for the run, and every table truncated after a test."""

from collections.abc import Iterator

import pytest
from py_pglite import PGliteConfig
from py_pglite.sqlalchemy import SQLAlchemyPGliteManager
from sqlalchemy import Engine, text
from suite import metadata


@pytest.fixture(scope="session")
def migrated() -> Iterator[Engine]:
    with SQLAlchemyPGliteManager(PGliteConfig()) as manager:
        manager.wait_for_ready()
        engine = manager.get_engine()
        metadata.create_all(engine)
        yield engine


@pytest.fixture
def engine(migrated: Engine) -> Iterator[Engine]:
    yield migrated
    with migrated.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY CASCADE"))
