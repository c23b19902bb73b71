"""Helpers of devtools' tests: waiting with a deadline, and running other processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

ROOT = Path(__file__).parents[3]
NO_DOCKER = {"DOCKER_HOST": "unix:///nonexistent"}


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not count."""
    if sys.platform == "linux":
        try:
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return status.rpartition(") ")[2][0] not in "ZX"
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip() != "" and "Z" not in state.stdout


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def data_directory(url: str) -> Path:
    return Path(str(query(url, "show data_directory")[0][0]))


def postmaster(data: Path) -> int:
    return int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])


CHOOSES_A_SERVER = ("PYTEST", "POSTGRES", "TEST_DATABASE", "DATABASE", "DOCKER", "PG")
# These variables make pytest print a longer summary, or colours.
SAYS_MORE = ("CI", "BUILD_NUMBER", "FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "TTY_COMPATIBLE")


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without Docker, and without variables that select a server or change output."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(CHOOSES_A_SERVER) and name not in SAYS_MORE
    }
    # The tests search in lines of the usual width.
    ours = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "COLUMNS": "80"}
    return inherited | ours | NO_DOCKER | variables


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def finished(
    command: Sequence[str], *, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command without Docker, and wait for its end."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
