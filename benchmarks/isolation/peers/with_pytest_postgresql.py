"""pytest-postgresql at its best: the migrated template that it clones a test, durability off, its data in memory.

The engine is one for all tests, without a pool, for the database has the same name in each: its documentation makes a
new one a test, which costs more.
"""

import os
from collections.abc import Iterator

import psycopg
import pytest
from pytest_postgresql import factories  # type: ignore[import-not-found]  # only where the benchmark runs it
from sqlalchemy import URL, Engine, NullPool

from backend.database import connect
from benchmarks.isolation.peers.schema import bring_to_head

SETTINGS = ("full_page_writes=off", "synchronous_commit=off", "wal_level=minimal", "max_wal_senders=0")


def url(host: str, port: int, user: str, dbname: str) -> str:
    return str(URL.create("postgresql+psycopg", user, host=host, port=port, database=dbname))


def load(host: str, port: int, user: str, dbname: str, **_: object) -> None:
    bring_to_head(url(host, port, user, dbname))


# fsync is off by its own -F.
postgresql_proc = factories.postgresql_proc(
    executable=os.environ["BENCH_PG_CTL"],
    load=[load],
    unixsocketdir=os.environ["BENCH_PLACE"],
    postgres_options=" ".join(f"-c {setting}" for setting in SETTINGS),
)
postgresql = factories.postgresql("postgresql_proc")


@pytest.fixture(scope="session")
def engine(postgresql_proc) -> Iterator[Engine]:  # type: ignore[no-untyped-def]  # noqa: ANN001  its type is not here
    process = postgresql_proc
    engine = connect(url(process.host, process.port, process.user, process.dbname), poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_engine(postgresql: psycopg.Connection, engine: Engine) -> Engine:  # noqa: ARG001  it makes the clone
    return engine


@pytest.fixture(scope="session")
def plain(postgresql_proc) -> Iterator[Engine]:  # type: ignore[no-untyped-def]  # noqa: ANN001  its type is not here
    process = postgresql_proc
    with psycopg.connect(
        host=process.host, port=process.port, user=process.user, dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f"create database plain template {process.template_dbname}".encode())
    engine = connect(url(process.host, process.port, process.user, "plain"))
    yield engine
    engine.dispose()
