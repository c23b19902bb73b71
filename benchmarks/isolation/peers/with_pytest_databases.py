"""pytest-databases: one container for the run, and every table truncated after a test, for it brings no isolation.

It takes neither a command nor a mount for its container: durability is off by ALTER SYSTEM, and the data stay on disk.
"""

from collections.abc import Iterator
from functools import partialmethod
from typing import Any

import psycopg
import pytest
from pytest_databases._service import DockerService  # type: ignore[import-not-found] # in the environment of the benchmark alone
from sqlalchemy import URL, Engine, text

from backend.database import connect
from backend.models.models import Base
from benchmarks.isolation.peers.schema import bring_to_head

pytest_plugins = ["pytest_databases.docker.postgres"]

# Its own 10 s are too few on a busy machine for a server that initialises on disk.
DockerService.run = partialmethod(DockerService.run, timeout=120)

TRUNCATE = text(f"TRUNCATE {', '.join(Base.metadata.tables)} RESTART IDENTITY CASCADE")


@pytest.fixture(scope="session")
def plain(postgres_18_service: Any) -> Iterator[Engine]:  # noqa: ANN401  its type is not here
    service = postgres_18_service
    url = URL.create(
        "postgresql+psycopg",
        service.user,
        service.password,
        service.host,
        service.port,
        service.database,
    ).render_as_string(hide_password=False)
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"alter system set {setting} = off".encode())
        connection.execute("select pg_reload_conf()")
    bring_to_head(url)
    engine = connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_engine(plain: Engine) -> Iterator[Engine]:
    yield plain
    with plain.begin() as connection:
        connection.execute(TRUNCATE)
