"""Helpers of the tests: Python programs, SQL in one line, and waiting with a deadline."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, text

from backend.config import ROOT


def run_python(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments to its end, with plain output of 100 columns."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def execute(engine: Engine, *statements: str) -> None:
    """Execute the statements in one transaction."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def ask(engine: Engine, query: str) -> Any:
    """Return the first value that the query gives."""
    with engine.connect() as connection:
        return connection.scalar(text(query))


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    """Execute a statement by psycopg alone; return the rows that it gives, if any."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)  # any condition is polled, because not all of them have an event to wait for
