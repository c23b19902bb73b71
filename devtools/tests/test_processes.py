"""Processes: reload after a saved file, several workers, and what signals do to the application and the shell."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine

from backend.config import ROOT
from backend.tests.loopback import WITHOUT_PROXY, free_port
from backend.tests.support import query, run_python, wait_until


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Copy the application, so that a test can change its files."""
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
        """Request a path and return the status, 0 if nothing answers."""
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
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.status(path) == 200

        wait_until(answers, path, 60)

    def end(self, number: int) -> str:
        """Send the signal to all its processes, like a terminal, and return the output."""
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


def test_workers_serve_behind_a_prefix_after_their_parent_has_migrated_the_database(
    serve: Callable[..., Serving],
) -> None:
    """The prefix comes from an option, the number of workers from a setting."""
    serving = serve("--root-path", "/procore", WEB_CONCURRENCY="2")
    serving.wait_for("/health/ready")
    wait_until(lambda: serving.log.read_text().count("Application startup complete.") == 2, "two workers", 60)

    with WITHOUT_PROXY.open(f"http://127.0.0.1:{serving.port}/openapi.json", timeout=10) as response:
        assert '"servers":[{"url":"/procore"}]' in response.read().decode()
    said = serving.end(signal.SIGTERM)

    assert serving.process.returncode == 0
    assert said.count("Started server process") == 2
    assert "Traceback" not in said
    assert serving.status("/health/live") == 0


def test_worker_of_uvicorn_with_a_mistake_in_a_setting_is_not_started_again() -> None:
    uvicorn = ("-m", "uvicorn", "--factory", "backend.main:create_app", "--port", "0", "--workers", "2")
    done = run_python(*uvicorn, APP_ENV="prod")

    assert 1 <= done.stderr.count("APP_ENV is invalid") <= 2
    assert "Traceback" not in done.stderr


def test_ctrl_c_in_the_shell_cancels_statements_and_ends_nothing_else(empty_url: str, tmp_path: Path) -> None:
    # In this environment as it is, of which nothing is to be installed.
    (tmp_path / "noxfile.py").write_text("import noxfile\nnoxfile.prepare = lambda session: None\n")
    variables = {"DATABASE_URL": empty_url, "UV_PROJECT_ENVIRONMENT": sys.prefix, "PYTHONPATH": str(ROOT)}
    variables |= {"PSQL_HISTORY": os.devnull, "PSQLRC": os.devnull}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nox", "-f", tmp_path / "noxfile.py", "-s", "db_shell"],
        cwd=ROOT, env=os.environ | variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    sleeping = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
        "AND state = 'active' AND query = 'SELECT pg_sleep(60);'"
    )
    try:
        for _ in range(3):  # by itself, nox would end at the second or the third
            os.write(ours, b"SELECT pg_sleep(60);\n")
            wait_until(lambda: query(empty_url, sleeping) != [], "a statement that takes long")
            os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all of them
            wait_until(lambda: query(empty_url, sleeping) == [], "its end")
        os.write(ours, b"\\q\n")
        assert process.wait(30) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    os.close(ours)
    os.close(theirs)


def test_ten_processes_that_start_together_succeed_and_one_migrates(empty_engine: Engine) -> None:
    url = empty_engine.url.render_as_string(hide_password=False)
    command = (sys.executable, "-m", "backend.scripts.init_db")
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"DATABASE_URL": url},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(10)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in started]

    assert [process.returncode for process in started] == [0] * 10, said
    assert sorted("from nothing to" in each for each in said) == [False] * 9 + [True], said
