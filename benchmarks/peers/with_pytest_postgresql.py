"""pytest-postgresql at its best: a clone of a migrated template per test, on a given server with durability off."""

import os
from collections.abc import Iterator

import psycopg
import pytest
from pytest_postgresql import factories
from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.engine import make_url
from suite import metadata

SERVER = make_url(os.environ["BENCH_SERVER"])


def load(*, dbname: str, **_: object) -> None:
    url = SERVER.set(drivername="postgresql+psycopg", database=dbname)
    metadata.create_all(create_engine(url, poolclass=NullPool))


given = factories.postgresql_noproc(
    host=SERVER.host, port=SERVER.port, user=SERVER.username, password=SERVER.password, load=[load]
)
postgresql = factories.postgresql("given")


@pytest.fixture
def engine(postgresql: psycopg.Connection) -> Iterator[Engine]:
    url = SERVER.set(drivername="postgresql+psycopg", database=postgresql.info.dbname)
    engine = create_engine(url)
    yield engine
    engine.dispose()
