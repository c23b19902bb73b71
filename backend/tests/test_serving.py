"""The process that serves: what a save, a kill, a Ctrl-C and a silent database do to it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.config import ROOT, load_settings
from backend.database import connect
from backend.main import create_app
from backend.routers import health
from backend.scripts import reload
from backend.tests.loopback import WITHOUT_PROXY


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what is served, to save files in."""
    left_out = shutil.ignore_patterns("tests", "e2e", "benchmarks", "__pycache__")
    shutil.copytree(ROOT / "backend", tmp_path / "backend", ignore=left_out)
    return tmp_path


@dataclass
class Serving:
    """`serve --reload` on the copy, with what it says in a file: a full pipe would stop it."""

    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> str:
        """Wait for the end that was asked for, and return what was said."""
        self.process.wait(30)
        return self.log.read_text()


@pytest.fixture
def serve(tree: Path, unused_port: int, postgres_url: str) -> Iterator[Callable[[], Serving]]:
    """Start servers; whatever is left of them is killed afterwards."""
    started: list[Serving] = []

    def start() -> Serving:
        log = tree / f"log{len(started)}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "backend.scripts.serve", "--reload", "--port", str(unused_port)],
                cwd=tree,
                env=os.environ | {"DATABASE_URL": postgres_url},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started.append(Serving(process, log))
        return started[-1]

    yield start
    for serving in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(serving.process.pid, signal.SIGKILL)
        serving.process.wait()


def status(port: int, path: str) -> int:
    """Ask for a path and return the status, 0 where nothing answers."""
    try:
        with WITHOUT_PROXY.open(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            code: int = response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0
    return code


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_saved_file_answers_anew_and_ctrl_c_stops_it_all(
    serve: Callable[[], Serving], tree: Path, unused_port: int
) -> None:
    serving = serve()
    wait_until(lambda: status(unused_port, "/health/ready") == 200, "ready")
    routes = tree / "backend" / "routers" / "health.py"

    routes.write_text(routes.read_text().replace('prefix="/health"', 'prefix="/well"'))
    wait_until(lambda: status(unused_port, "/well/ready") == 200, "the saved file's answer")
    os.killpg(serving.process.pid, signal.SIGINT)
    said = serving.end()

    assert serving.process.returncode == 0
    assert "Application shutdown complete." in said
    assert "Traceback" not in said
    assert status(unused_port, "/well/live") == 0


def test_killed_supervisor_leaves_its_port_free(serve: Callable[[], Serving], unused_port: int) -> None:
    serving = serve()
    wait_until(lambda: status(unused_port, "/health/ready") == 200, "ready")

    serving.process.kill()

    wait_until(lambda: status(unused_port, "/health/live") == 0, "the port being free")


def test_impatient_ctrl_c_stops_it_all_the_same(serve: Callable[[], Serving], unused_port: int) -> None:
    serving = serve()
    wait_until(lambda: status(unused_port, "/health/ready") == 200, "ready")

    for _ in range(2000):
        serving.process.send_signal(signal.SIGINT)
    said = serving.end()

    assert serving.process.returncode == 0
    assert "Traceback" not in said
    assert status(unused_port, "/health/live") == 0


@pytest.mark.parametrize(
    "moment", ["Will watch", "Uvicorn running", "Started server process", "Application startup complete"]
)
def test_ctrl_c_during_a_start_is_quiet(serve: Callable[[], Serving], moment: str) -> None:
    serving = serve()
    wait_until(lambda: moment in serving.log.read_text(), moment)
    os.killpg(serving.process.pid, signal.SIGINT)

    said = serving.end()

    assert serving.process.returncode in {0, 130}, said
    assert "Traceback" not in said, said


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


@pytest.mark.parametrize("name", reload.PACKAGES)
def test_what_is_imported_ahead_is_there(name: str) -> None:
    """The fork server passes over what it cannot import, and a reload would be slow again without a word."""
    assert import_module(name).__name__ == name
