"""Fresh copies of the checkout with their own Compose projects and ports, and functions to work with them."""

import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import httpx2
import psycopg
from httpx2 import Response, TransportError

from backend.tests.loopback import free_port

ROOT = Path(__file__).resolve().parents[1]
# Variables of a developer's shell that must not affect a fresh clone.
OURS = [
    "APP_ENV",
    "API_TOKEN",
    "DATABASE_URL",
    "TEST_DATABASE_URL",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "COMPOSE_FILE",
]
HOSTILE = "p@ : / % $ # ' \" ${HOME} end"
"""A password, and how it is written in single quotes in `.env`."""
HOSTILE_IN_ENV = HOSTILE.replace("'", "\\'")


def request(url: str, *, data: object = None, seconds: float = 30) -> Response:
    """Get a page, or post the data as JSON. An error status is returned, not raised."""
    method = "GET" if data is None else "POST"
    return httpx2.request(method, url, json=data, timeout=seconds, trust_env=False)


def answers(url: str) -> bool:
    try:
        # While a saved file has a mistake, uvicorn accepts connections and answers none.
        return request(url, seconds=5).status_code == HTTPStatus.OK
    except TransportError:
        return False


def accepts(url: str) -> bool:
    """Whether a PostgreSQL server accepts this login."""
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class Checkout:
    """A copy of the checkout as Git would check it out, with its own ports and Compose project name."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)
    api_port: int = field(default_factory=free_port)
    db_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        kept |= {"API_PORT": str(self.api_port), "DB_PORT": str(self.db_port)}
        kept["COMPOSE_PROJECT_NAME"] = f"e2e-{uuid.uuid4().hex[:8]}"
        self.environment = {name: value for name, value in kept.items() if not name.startswith("POSTGRES_")}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def run(self, *command: str, check: bool = True, seconds: float = 900, **environment: str) -> str:
        """Run a command in the checkout and return its output; with `check`, fail the test if the command fails."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}"
        )
        return done.stdout

    def compose(self, *arguments: str, check: bool = True) -> str:
        return self.run("docker", "compose", *arguments, check=check)

    def psql(self, statement: str) -> str:
        """Run SQL in Compose's database."""
        command = ("psql", "-U", "postgres", "-d", "procore_integrator", "-qAtc", statement)
        return self.compose("exec", "-T", "db", *command).strip()


def copy_checkout(path: Path) -> Path:
    """Copy the checkout's tracked and untracked files, but no ignored ones, in their current state."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    return path
