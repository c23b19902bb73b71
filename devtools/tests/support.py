"""Helpers of devtools' tests: waiting with a deadline, and running other processes."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

ROOT = Path(__file__).parents[3]
NO_DOCKER = {"DOCKER_HOST": "unix:///nonexistent"}


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]
