"""What these tests share: a database, its commands, and what it holds by another's word, pg_dump's plain text."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from backend.config import ROOT
from backend.database import connect
from backend.errors import UserError
from devtools.backup import archive, make, restore
from freshpg import database_url, find_clients, sqlalchemy_url


def query(url: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@dataclass
class Database:
    """A database, and the server that it is on."""

    server: str
    name: str

    @property
    def quoted(self) -> str:
        return '"' + self.name.replace('"', '""') + '"'

    @property
    def url(self) -> str:
        return database_url(self.server, self.name)

    @property
    def driver_url(self) -> str:
        return sqlalchemy_url(self.url)

    def run(self, *statements: str) -> None:
        query(self.url, *statements)

    def ask(self, statement: str) -> object:
        return query(self.url, statement)[0][0]

    def beside(self) -> list[str]:
        """Name the databases whose names begin with this one's, itself among them."""
        statement = "SELECT datname FROM pg_database WHERE starts_with(datname, $$%s$$) ORDER BY 1"
        return [str(name) for (name,) in query(self.server, statement.replace("%s", self.name, 1))]

    def dumped(self) -> list[str]:
        """Return all of it as pg_dump says it in plain text, what belongs to the database itself included."""
        major = int(str(self.ask("SHOW server_version_num"))) // 10000
        programs = find_clients(major)
        assert programs is not None
        done = subprocess.run(
            [programs / "pg_dump", "--create", self.url], capture_output=True, text=True, check=True
        )
        # Two lines hold a random word.
        return [line for line in done.stdout.splitlines() if not re.match(r"\\(un)?restrict ", line)]


def backup(path: Path | None = None) -> Path:
    """Run db_backup; return the file, the newest where none was named."""
    make.main([] if path is None else [str(path)])
    return path or max(archive.DIRECTORY.glob("*.zip"), key=lambda found: found.stat().st_mtime_ns)


def refused(*arguments: str) -> str:
    """Run db_restore, which must refuse; return what it says."""
    with pytest.raises(UserError) as caught:
        restore.main(list(arguments))
    return str(caught.value)


def command(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        python(module, *arguments), cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def python(module: str, *arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", module, *arguments]


def write_rows(url: str, rows: int) -> None:
    """Write companies, and so many rows of usage."""
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO companies (name) SELECT 'Company ' || n FROM generate_series(1, 20) AS n")
        )
        connection.execute(
            text(
                "INSERT INTO usage_logs (company_id, action, quantity, details) "
                "SELECT 1 + n % 20, 'project.read', n, jsonb_build_object('n', n) FROM generate_series(1, :rows) AS n"
            ),
            {"rows": rows},
        )
    engine.dispose()
