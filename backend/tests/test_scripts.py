"""The scripts' doors: what they do, what they say, and what they refuse."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from backend import migrations
from backend.config import ROOT
from backend.database import connect
from backend.errors import UserError
from backend.scripts import healthcheck, init_db, serve

SECRET = "do-not-print-this"


@pytest.fixture
def configured(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An empty database, which the settings name."""
    monkeypatch.setenv("DATABASE_URL", empty_url)
    engine = connect(empty_url)
    yield engine
    engine.dispose()


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=os.environ | environment,
        cwd=ROOT,
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
    assert second.endswith(f"is at {migrations.head()} already: nothing to do.")


@pytest.mark.parametrize("script", ["init_db", "reset_db"])
def test_script_runs_by_its_path_from_anywhere(script: str, configured: Engine, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "backend" / "scripts" / f"{script}.py"),
            *(["--yes-drop", str(configured.url.database)] if script == "reset_db" else []),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert exists(configured, "companies")


@pytest.fixture
def bare_copy(tmp_path: Path) -> Path:
    """The scripts in a tree that has no environment."""
    shutil.copytree(ROOT / "backend" / "scripts", tmp_path / "backend" / "scripts")
    return tmp_path


def test_script_run_by_a_python_without_our_packages_says_what_to_do(bare_copy: Path) -> None:
    done = run(sys.executable, "-I", "-S", str(bare_copy / "backend" / "scripts" / "init_db.py"))

    assert done.returncode == 1
    assert "has none of this project's packages.\nMake an environment with `nox -s venv`" in done.stderr


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


DOORS = [
    ("-m", "backend.scripts.serve", "--reload"),
    ("-m", "backend.scripts.init_db"),
    ("backend/scripts/reset_db.py",),
    ("-m", "devtools.database", "init"),
    ("-m", "uvicorn", "--factory", "backend.main:create_app", "--port", "0"),
]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: " ".join(door[:2]))
def test_mistake_in_a_setting_is_a_plain_line_by_every_door(door: tuple[str, ...]) -> None:
    done = run(sys.executable, *door, DATABASE_URL=f"postgres//u:{SECRET}@h/d", APP_ENV="prod")

    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(
        "^DATABASE_URL is not a database's URL; it must look like postgresql", said, re.MULTILINE
    )
    assert re.search("^APP_ENV is 'prod'; it must be development, test or production", said, re.MULTILINE)
    assert "Traceback" not in said
    assert SECRET not in said


@pytest.mark.parametrize("door", [(*DOORS[0], "--port", "0"), DOORS[4]], ids=["serve", "uvicorn"])
def test_absent_database_ends_a_start_with_a_plain_line(door: tuple[str, ...]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers, and nobody else takes it
        port = listener.getsockname()[1]
        done = run(
            sys.executable, *door,
            DATABASE_URL=f"postgresql://u:{SECRET}@127.0.0.1:{port}/d", DATABASE_WAIT_SECONDS="0.3",
        )  # fmt: skip

    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"The database at 127.0.0.1:{port}/d was not to be had for 0.3 s: Connection refused." in said
    assert "Traceback" not in said
    assert SECRET not in said


def test_health_check_of_a_port_where_nothing_listens_fails_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setattr(sys, "argv", ["healthcheck", "--port", str(listener.getsockname()[1])])

        with pytest.raises(SystemExit, match="the API does not answer on port"):
            healthcheck.main()
