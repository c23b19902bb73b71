"""The scripts as commands: what they do, print and refuse."""

import shutil
import socket
from pathlib import Path

import pytest
from sqlalchemy import Engine

from backend import migrations
from backend.config import ROOT
from backend.errors import UserError
from backend.scripts import healthcheck, init_db, serve
from backend.tests.support import run_python

SECRET = "do-not-print-this"


def test_init_says_where_it_came_from_and_that_it_is_done(
    configured: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    init_db.main([])
    init_db.main([])

    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"initialised: from nothing to {migrations.head()}.")
    assert second.endswith(f"is already at {migrations.head()}: nothing to do.")


@pytest.fixture
def bare_copy(tmp_path: Path) -> Path:
    """Copy the scripts into a directory without an environment."""
    shutil.copytree(ROOT / "backend" / "scripts", tmp_path / "backend" / "scripts")
    return tmp_path


def test_script_run_by_a_python_without_our_packages_says_what_to_do(bare_copy: Path) -> None:
    done = run_python("-I", "-S", str(bare_copy / "backend" / "scripts" / "init_db.py"))

    assert done.returncode == 1
    assert "does not have this project's packages.\nRun `nox -s db_init`" in done.stderr


def test_script_run_by_a_python_without_our_packages_continues_in_the_environment(bare_copy: Path) -> None:
    python = bare_copy / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "in .venv: $*"\n')
    python.chmod(0o755)
    script = str(bare_copy / "backend" / "scripts" / "init_db.py")

    done = run_python("-I", "-S", script, "--help")

    assert done.stdout == f"in .venv: {script} --help\n"


def test_serve_reports_a_port_that_is_in_use(configured: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        with pytest.raises(UserError) as caught:
            serve.main(["--port", str(port)])

    assert str(caught.value) == (
        f"Port {port} on 127.0.0.1 is in use: stop the process that uses it, or choose another (API_PORT or --port)."
    )


def test_serve_names_the_option_or_the_setting_that_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "none")

    with pytest.raises(UserError) as caught:
        serve.main(["--port", "80000"])

    lines = str(caught.value).splitlines()
    assert sorted(line.partition(" is invalid: ")[0] for line in lines) == ["--port", "WEB_CONCURRENCY"]


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b"])
def test_serve_reports_a_host_that_does_not_exist(host: str, configured: Engine) -> None:
    with pytest.raises(UserError, match=f"Cannot listen on port 8000 of {host!r}: "):
        serve.main(["--host", host, "--port", "8000"])


UVICORN = ("-m", "uvicorn", "--factory", "backend.main:create_app", "--port", "0")


@pytest.fixture
def bare_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn reads this variable itself, and does not accept an empty one."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


@pytest.mark.parametrize("door", [("-m", "backend.scripts.serve", "--reload"), UVICORN], ids=" ".join)
def test_mistake_in_a_setting_is_plain_lines_and_exit_code_1(
    door: tuple[str, ...], bare_workers: None
) -> None:
    done = run_python(*door, DATABASE_URL=f"postgres//u:{SECRET}@h/d", APP_ENV="prod")

    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]
    assert done.returncode == 1
    assert lines[0] == (
        "APP_ENV is invalid: input should be 'development', 'test' or 'production'. "
        "Correct it in the environment, .env or backend/.env."
    )
    assert lines[1].startswith(
        "DATABASE_URL is not a PostgreSQL URL for psycopg; it must look like postgresql"
    )
    assert len(lines) == 2
    assert SECRET not in done.stdout + done.stderr


# 3 is uvicorn's own code for an application whose start failed.
@pytest.mark.parametrize(("door", "code"), [(("-m", "backend.scripts.init_db"), 1), (UVICORN, 3)])
def test_database_that_does_not_answer_is_plain_lines(
    door: tuple[str, ...], code: int, unused_port: int, bare_workers: None
) -> None:
    url = f"postgresql://u:{SECRET}@127.0.0.1:{unused_port}/d"
    done = run_python(*door, DATABASE_URL=url, DATABASE_WAIT_SECONDS="0.3")

    said = done.stdout + done.stderr
    assert done.returncode == code
    assert f"Could not connect to 127.0.0.1:{unused_port}/d within 0.3 s: Connection refused." in said
    assert "Traceback" not in said
    assert SECRET not in said


def test_health_check_of_a_port_where_nothing_listens_fails_plainly(
    unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healthcheck, "PORT", unused_port)

    with pytest.raises(SystemExit, match="The API does not answer on port"):
        healthcheck.main()
