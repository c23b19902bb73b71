"""The application's processes: reload after a saved file, signals, several workers, and a killed reset."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from backend.config import ROOT
from backend.database import init_db, schema_state
from backend.migrations import environment_marker
from backend.models.models import Base
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


RESET_AND_SAY_WHEN = """
import sys
from backend.database import connect, reset_db
from backend import migrations
migrations.head()
import alembic.command
engine = connect(sys.argv[1])
with engine.connect():
    pass
print("ready", flush=True)
sys.stdin.readline()
reset_db(engine)
"""


@pytest.mark.parametrize("milliseconds", [15, 60])
def test_killed_reset_leaves_all_or_nothing(milliseconds: int, empty_engine: Engine, empty_url: str) -> None:
    init_db(empty_engine, environment="development")
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE precious AS SELECT 42 AS answer"))
    process = subprocess.Popen(
        [sys.executable, "-c", RESET_AND_SAY_WHEN, f"{empty_url}?application_name=killed"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(milliseconds / 1000)
        process.kill()
        process.wait()

    # The server process notices only when it next sends something to the client.
    rest = "SELECT FROM pg_stat_activity WHERE application_name = 'killed' AND datname = current_database()"
    wait_until(lambda: query(empty_url, rest) == [], "the end of the killed client's connection")
    with empty_engine.connect() as connection:
        tables = set(connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")))
        assert schema_state(connection).is_at_head
        assert environment_marker.read(connection) == "development"
    assert tables - {"precious"} == {*Base.metadata.tables, "alembic_version"}


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
