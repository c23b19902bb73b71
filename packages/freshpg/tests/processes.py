"""Helpers for tests of servers: questions to a server, other processes, and waiting with a deadline."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from freshpg import Server

NO_DOCKER = "unix:///nonexistent"

LIBPQ = {
    "PGSSLMODE": "require",
    "PGSERVICE": "nosuch",
    "PGHOSTADDR": "192.0.2.1",
    "PGREQUIREAUTH": "none",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCHANNELBINDING": "require",
    "PGOPTIONS": "-c no_such_setting=1",
}
"""Variables of which each breaks a connection to a server of ours."""

CONFTEST = """
import psycopg, pytest

def run(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

@pytest.fixture(scope="session")
def postgres_migrate():
    def migrate(url):
        with open("migrated", "a") as file:
            print(url, file=file)
        run(url, "create table things (id int generated always as identity, name text not null)")
        run(url, "create table revision as select 'head' as name")
    return migrate
"""
"""A project that uses the plugin."""

Run = Callable[..., pytest.RunResult]
"""The fixture `run`: it runs pytest on a test module of that project."""


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def show(url: str, *names: str) -> list[object]:
    return [query(url, f"show {name}")[0][0] for name in names]


def data_directory(url: str) -> Path:
    return Path(str(show(url, "data_directory")[0]))


def postmaster(data: Path) -> int:
    return int((data / "postmaster.pid").read_text(encoding="utf-8").split()[0])


def accepts_tcp(host: str, port: int) -> bool:
    """Tell whether something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)  # any condition is polled, because not all of them have an event to wait for


def wait_for_death(server: Server) -> str:
    wait_until(lambda: server.describe_death() is not None, "the death is noticed")
    return str(server.describe_death())


@contextmanager
def owner(script: str, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a Python script that starts a server; lend its process and the first line that it prints."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def open_directory() -> Iterator[Path]:
    """Lend a directory that every account can enter; pytest's `tmp_path` is this user's alone."""
    memory = Path("/dev/shm")  # noqa: S108 (the directory there has a random name)
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    with tempfile.TemporaryDirectory(dir=memory if has_room else "/var/tmp") as name:  # noqa: S108 (random too)
        Path(name).chmod(0o755)
        yield Path(name)
