"""Databases of a server on which a test may do anything, and which counts as near: it is on this machine."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.database import connect, init_db
from devtools.backup import archive
from freshpg import Server, database_url, sqlalchemy_url, start_ephemeral

from .support import Database, query

HOSTILE = 'ours & "theirs" %s'


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server with a database `at_head`, of development by its mark, to be copied."""
    with start_ephemeral() as server:
        query(server.url, "CREATE DATABASE at_head")
        engine = connect(sqlalchemy_url(database_url(server.url, "at_head")))
        init_db(engine, environment="development")
        engine.dispose()
        yield server


@pytest.fixture
def ours(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A development database at head, of a name that has to be quoted, which the settings name."""
    database = Database(server.url, f"{HOSTILE} {secrets.token_hex(4)}")
    query(server.url, f"CREATE DATABASE {database.quoted} TEMPLATE at_head STRATEGY file_copy")
    monkeypatch.setenv("DATABASE_URL", database.driver_url)
    monkeypatch.setattr(archive, "DIRECTORY", tmp_path / "backups")
    yield database
    for left in database.beside():
        query(server.url, f"DROP DATABASE IF EXISTS {Database(server.url, left).quoted} WITH (FORCE)")
