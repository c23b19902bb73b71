"""A clone a test, as pgtestdb does it: a template made once, CREATE DATABASE before and DROP DATABASE after each test.

Each clone has an Engine of its own, as each has a connection pool of its own there. On the embedded server that ours
runs on; with STRATEGY FILE_COPY, which is quicker for a small database than the default that pgtestdb leaves it at.
"""

from collections.abc import Iterator
from itertools import count

import psycopg
import pytest
from sqlalchemy import Engine

from backend.database import connect
from benchmarks.isolation.peers.schema import bring_to_head
from freshpg import database_url, sqlalchemy_url, start_ephemeral

_numbers = count()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with start_ephemeral() as server:
        yield server.url


@pytest.fixture(scope="session")
def administration(server: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def template(server: str, administration: psycopg.Connection) -> str:
    administration.execute("create database template_of_all")
    bring_to_head(sqlalchemy_url(database_url(server, "template_of_all")))
    administration.execute("alter database template_of_all is_template true")
    return "template_of_all"


@pytest.fixture
def postgres_engine(server: str, administration: psycopg.Connection, template: str) -> Iterator[Engine]:
    name = f"clone_{next(_numbers)}"
    administration.execute(f"create database {name} template {template} strategy file_copy".encode())
    engine = connect(sqlalchemy_url(database_url(server, name)))
    yield engine
    engine.dispose()
    administration.execute(f"drop database {name}".encode())


@pytest.fixture(scope="session")
def plain(server: str, administration: psycopg.Connection, template: str) -> Iterator[Engine]:
    administration.execute(f"create database plain template {template}".encode())
    engine = connect(sqlalchemy_url(database_url(server, "plain")))
    yield engine
    engine.dispose()
