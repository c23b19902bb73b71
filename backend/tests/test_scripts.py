"""The scripts' doors: what they do, what they say, and what they refuse."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from backend import migrations
from backend.config import ROOT
from backend.errors import UserError
from backend.scripts import healthcheck, init_db, serve
from backend.tests.loopback import free_port

SECRET = "do-not-print-this"


@pytest.fixture
def configured(empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An empty database, which the settings name."""
    monkeypatch.setenv("DATABASE_URL", empty_engine.url.render_as_string(hide_password=False))
    return empty_engine


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=os.environ | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def exists(engine: Engine, table: str) -> bool:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": table}) is True


def test_init_says_where_it_came_from_and_that_it_is_done(
    configured: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    init_db.main([])
    init_db.main([])

    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"initialised: from nothing to {migrations.head()}.")
    assert second.endswith(f"is already at {migrations.head()}: nothing to do.")


@pytest.mark.parametrize("script", ["init_db", "reset_db"])
@pytest.mark.parametrize("options", [[], ["-I"]], ids=["plain", "isolated"])
def test_script_runs_by_its_path_from_anywhere(
    script: str, options: list[str], configured: Engine, tmp_path: Path
) -> None:
    path = str(ROOT / "backend" / "scripts" / f"{script}.py")
    typed = ["--yes-drop", str(configured.url.database)] if script == "reset_db" else []
    done = run(sys.executable, *options, path, *typed, cwd=tmp_path, PYTHONSAFEPATH="1")

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Database: .*, as configured\.\n", done.stderr)
    assert exists(configured, "companies")


def test_script_by_its_path_finds_a_database_as_nox_does(tmp_path: Path) -> None:
    """Nothing is configured and nothing listens on DB_PORT: it neither waits nor fails."""
    shutil.copytree(ROOT / "backend", tmp_path / "backend", ignore=shutil.ignore_patterns("tests"))
    shutil.copytree(ROOT / "devtools", tmp_path / "devtools", ignore=shutil.ignore_patterns("tests"))
    done = run(
        sys.executable, str(tmp_path / "backend" / "scripts" / "init_db.py"),
        cwd=tmp_path, DB_PORT=str(free_port()), DOCKER_HOST="unix:///nonexistent",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("No database found; using a temporary one. Your data is unchanged.")
    assert "initialised: from nothing to " in done.stdout


@pytest.fixture
def bare_copy(tmp_path: Path) -> Path:
    """The scripts in a tree that has no environment."""
    shutil.copytree(ROOT / "backend" / "scripts", tmp_path / "backend" / "scripts")
    return tmp_path


def test_script_run_by_a_python_without_our_packages_says_what_to_do(bare_copy: Path) -> None:
    done = run(sys.executable, "-I", "-S", str(bare_copy / "backend" / "scripts" / "init_db.py"))

    assert done.returncode == 1
    assert "has none of this project's packages.\nRun `nox -s db_init`" in done.stderr


def test_script_run_by_a_python_without_our_packages_goes_on_in_the_environment(bare_copy: Path) -> None:
    python = bare_copy / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "in .venv: $*"\n')
    python.chmod(0o755)
    script = str(bare_copy / "backend" / "scripts" / "init_db.py")

    done = run(sys.executable, "-I", "-S", script, "--help")

    assert done.stdout == f"in .venv: {script} --help\n"


def test_serve_names_a_port_that_is_taken(configured: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        with pytest.raises(UserError) as caught:
            serve.main(["--port", str(port)])

    assert str(caught.value) == (
        f"Port {port} on 127.0.0.1 is taken: stop what listens there, or set API_PORT to a free one."
    )


SERVE = ("-m", "backend.scripts.serve", "--port", "0")
UVICORN = ("-m", "uvicorn", "--factory", "backend.main:create_app", "--port", "0")
DOORS = [
    SERVE,
    (*SERVE, "--reload"),
    UVICORN,
    ("-m", "backend.scripts.init_db"),
    ("backend/scripts/reset_db.py",),
    ("-m", "devtools.database", "init"),
    ("-m", "devtools.dev"),
]


@pytest.fixture
def bare_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn reads this variable itself, and does not accept an empty one."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


@pytest.mark.parametrize("door", DOORS, ids=" ".join)
def test_mistake_in_a_setting_is_plain_lines_and_exit_code_1(
    door: tuple[str, ...], bare_workers: None
) -> None:
    done = run(sys.executable, *door, DATABASE_URL=f"postgres//u:{SECRET}@h/d", APP_ENV="prod")

    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]
    assert done.returncode == 1
    assert lines[0] == (
        "APP_ENV is 'prod'; it must be development, test or production. Set it in the environment or in .env."
    )
    assert lines[1].startswith(
        "DATABASE_URL is not a PostgreSQL URL for psycopg; it must look like postgresql"
    )
    assert len(lines) == 2
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("door", DOORS[1:4], ids=" ".join)
def test_database_that_does_not_answer_is_plain_lines(door: tuple[str, ...], bare_workers: None) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers, and nobody else takes it
        port = listener.getsockname()[1]
        url = f"postgresql://u:{SECRET}@127.0.0.1:{port}/d"
        done = run(sys.executable, *door, DATABASE_URL=url, DATABASE_WAIT_SECONDS="0.3")

    said = done.stdout + done.stderr
    # 3 is uvicorn's own code for an application whose start failed.
    assert done.returncode == (3 if door is UVICORN else 1)
    assert f"Could not connect to 127.0.0.1:{port}/d within 0.3 s: Connection refused." in said
    assert "Traceback" not in said
    assert SECRET not in said


def test_worker_of_uvicorn_with_a_mistake_in_a_setting_is_not_started_again(bare_workers: None) -> None:
    done = run(sys.executable, *UVICORN, "--workers", "1", "--workers", "2", APP_ENV="prod")

    assert 1 <= done.stderr.count("APP_ENV is 'prod'") <= 2
    assert "Traceback" not in done.stderr


def test_health_check_of_a_port_where_nothing_listens_fails_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setattr(sys, "argv", ["healthcheck", "--port", str(listener.getsockname()[1])])

        with pytest.raises(SystemExit, match="The API does not answer on port"):
            healthcheck.main()
