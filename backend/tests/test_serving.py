"""The process that serves: what a save, a signal, several workers, a proxy and a silent database do to it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from backend.config import ROOT, load_settings
from backend.database import connect
from backend.main import create_app
from backend.routers import health
from backend.tests.loopback import WITHOUT_PROXY, free_port


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what is served, to save files in."""
    left_out = shutil.ignore_patterns("tests", "__pycache__")
    shutil.copytree(ROOT / "backend", tmp_path / "backend", ignore=left_out)
    return tmp_path


@dataclass
class Serving:
    """A server on the copy, with its output in a file: a full pipe would stop it."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def status(self, path: str) -> int:
        """Ask for a path and return the status, 0 if nothing answers."""
        try:
            with WITHOUT_PROXY.open(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
                code: int = response.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0
        return code

    def wait_for(self, path: str) -> None:
        deadline = time.monotonic() + 60
        while self.status(path) != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def end(self, number: int) -> str:
        """Stop it as a terminal does, and return what it printed."""
        os.killpg(self.process.pid, number)
        self.process.wait(30)
        return self.log.read_text()


@pytest.fixture
def serve(tree: Path, empty_engine: Engine) -> Iterator[Callable[..., Serving]]:
    """Start servers on an empty database; they are killed afterwards."""
    started: list[Serving] = []

    def start(*arguments: str, **environment: str) -> Serving:
        port, log = free_port(), tree / f"log{len(started)}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "backend.scripts.serve", "--port", str(port), *arguments],
                cwd=tree,
                env=os.environ
                | {"DATABASE_URL": empty_engine.url.render_as_string(hide_password=False)}
                | environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started.append(Serving(process, port, log))
        return started[-1]

    yield start
    for serving in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(serving.process.pid, signal.SIGKILL)
        serving.process.wait()


def test_saved_file_is_served_and_ctrl_c_stops_everything(serve: Callable[..., Serving], tree: Path) -> None:
    serving = serve("--reload", WEB_CONCURRENCY="3")
    serving.wait_for("/health/ready")
    routes = tree / "backend" / "routers" / "health.py"

    routes.write_text(routes.read_text().replace('prefix="/health"', 'prefix="/well"'))
    serving.wait_for("/well/ready")
    said = serving.end(signal.SIGINT)

    assert serving.process.returncode == 0
    assert "Application shutdown complete." in said
    assert "Traceback" not in said
    assert serving.status("/well/live") == 0


@pytest.mark.parametrize("by", ["option", "setting"])
def test_workers_serve_a_database_that_their_parent_migrated(serve: Callable[..., Serving], by: str) -> None:
    serving = serve("--workers", "2") if by == "option" else serve(WEB_CONCURRENCY="2")
    serving.wait_for("/health/ready")
    deadline = time.monotonic() + 60
    while serving.log.read_text().count("Application startup complete.") < 2:
        assert time.monotonic() < deadline, serving.log.read_text()
        time.sleep(0.02)

    said = serving.end(signal.SIGTERM)

    assert serving.process.returncode == 0
    assert said.count("Started server process") == 2
    assert "Traceback" not in said
    assert serving.status("/health/live") == 0


@pytest.mark.parametrize("by", ["option", "setting"])
def test_prefix_that_a_proxy_removes_is_in_every_link(serve: Callable[..., Serving], by: str) -> None:
    serving = serve("--root-path", "/procore") if by == "option" else serve(ROOT_PATH="/procore")
    serving.wait_for("/health/ready")

    with WITHOUT_PROXY.open(f"http://127.0.0.1:{serving.port}/docs", timeout=10) as response:
        page = response.read().decode()
    assert "'/procore/openapi.json'" in page
    assert '"/procore/docs/assets/swagger-ui-bundle.js"' in page
    assert serving.status("/docs/assets/swagger-ui-bundle.js") == 200
    with WITHOUT_PROXY.open(f"http://127.0.0.1:{serving.port}/openapi.json", timeout=10) as response:
        assert '"servers":[{"url":"/procore"}]' in response.read().decode()


def test_database_that_is_silent_is_not_waited_for_by_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen server takes connections and says nothing; the probe says 503 while the attempt still hangs."""
    monkeypatch.setattr(health, "PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://u:p@127.0.0.1:{silent.getsockname()[1]}/d?connect_timeout=60"
        engine = connect(url)
        client = TestClient(
            create_app(load_settings(_env_file=None, app_env="test", database_url=url), engine=engine)
        )

        response = client.get("/health/ready")

        assert (response.status_code, response.json()["detail"]) == (503, "The database does not answer.")
        attempt, _ = silent.accept()
        with attempt:
            attempt.settimeout(10)
            assert attempt.recv(1024), "what libpq begins with"
            attempt.settimeout(0)
            with pytest.raises(BlockingIOError):  # closed, it would have given nothing
                attempt.recv(1024)
