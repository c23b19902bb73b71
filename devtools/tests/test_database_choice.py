"""The database that a command uses, its announcement, and that the user's data are not changed."""

import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, make_url, text

from backend.config import ROOT, Settings, load_settings
from backend.tests.support import query, run_python
from devtools import database, psql
from freshpg import Server, find_binaries, start_ephemeral

PASSWORD = "p@ : / % $ # ' \" ${HOME} end"


@pytest.fixture(autouse=True)
def no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the checkout's own `.dev` directory, and Docker."""
    directory = tmp_path / ".dev" / "postgres-18"
    monkeypatch.setattr(database, "DIRECTORY", directory)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    return directory


def settings(**values: object) -> Settings:
    return load_settings(_env_file=None, **values)


def composes(server: Server, password: str) -> Settings:
    """Return settings that describe a server as Compose's database: by its port on loopback, in parts."""
    return settings(db_port=make_url(server.url).port, postgres_password=password)


def test_configured_database_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with database.find_own(settings(database_url="postgresql://u:secret@127.0.0.1:1/mine")) as url:
        assert make_url(url).database == "mine"

    assert capsys.readouterr().err == "Database: 127.0.0.1:1/mine, as configured.\n"


def test_composes_database_is_used_if_it_answers_whatever_its_password_and_libpqs_variables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_ephemeral() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(PASSWORD))
        monkeypatch.setenv("PGSSLMODE", "require")
        monkeypatch.setenv("PGSERVICE", "nosuch")
        for password in (PASSWORD, "wrong"):
            mine = composes(server, password)
            with database.find_own(mine) as url:
                assert make_url(url).password == password
            port = mine.db_port
            assert capsys.readouterr().err == (
                f"Database: 127.0.0.1:{port}/procore_integrator, Compose's, on DB_PORT {port}.\n"
            )


def test_composes_database_that_is_still_starting_is_not_passed_over() -> None:
    """Otherwise `docker compose up -d db && nox -s dev` would work on another database."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        port = proxy.getsockname()[1]

        assert database.reason_to_use(settings(db_port=port)) == f"Compose's, on DB_PORT {port}"


def test_embedded_database_is_created_for_dev_and_then_found_by_all(
    no_directory: Path, unused_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = settings(db_port=unused_port)
    with database.find_own(mine, create=True) as url:
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with database.find_own(mine) as url:
        assert query(url, "SELECT answer FROM kept") == [(42,)]

    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert "postgres-18, PostgreSQL 18." in first
    assert no_directory.is_dir()


def test_temporary_server_is_used_if_there_is_no_database(
    no_directory: Path,
    unused_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DB_PORT", str(unused_port))
    for name in ("DATABASE_URL", "APP_ENV"):
        monkeypatch.setenv(name, "")
    no_directory.with_name("postgres-17").mkdir(parents=True)

    assert database.main(["shell", "-Atc", "SELECT count(*) FROM companies"]) == 0

    said = capfd.readouterr()
    older, announced = said.err.splitlines()[:2]
    assert "postgres-17 holds data of an older PostgreSQL: `nox -s db_upgrade` moves it to " in older
    assert announced.startswith(
        "No database found; using a temporary one. Your data is unchanged. PostgreSQL 18."
    )
    assert said.out.endswith("\n0\n")
    assert not no_directory.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["reset"], "dropped table public.companies"),
        (["restore", "--yes-drop", "procore_integrator", "--no-owner"], "Restored "),
    ],
)
def test_temporary_server_on_request_wins_over_the_configured_database(
    words: list[str], says: str, configured: Engine
) -> None:
    done = command(*words, "--ephemeral")

    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert done.stderr.endswith("The temporary server was removed; your data is unchanged.\n")
    with configured.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) == 0


def test_shell_is_psql_with_every_parameter_of_the_url(
    configured: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = configured.url.update_query_dict({"options": "-c search_path=zzz", "application_name": "a b"})
    monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))

    done = command(
        "shell", "-Atc", "SHOW search_path", "-c", "SHOW application_name", "-c", "SELECT current_database()"
    )

    assert done.stdout.split("\n") == ["zzz", "a b", str(configured.url.database), ""], done.stderr


def test_shell_gives_up_on_a_port_that_never_answers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(psql, "CONNECT_SECONDS", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d"
        monkeypatch.setenv("DATABASE_URL", url)
        # If it waited for ever, the end of the port would end it.
        end = threading.Timer(30, silent.close)
        end.start()
        assert psql.main(["-c", "SELECT 1"]) == 2
        end.cancel()

    assert "timeout expired" in capfd.readouterr().err


def test_shell_uses_the_systems_psql_or_else_the_embedded_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert psql.find_psql() == find_binaries().program("psql")

    (tmp_path / "psql").touch(0o755)
    assert psql.find_psql() == str(tmp_path / "psql")


@pytest.mark.parametrize(("script", "options"), [("init_db", ["-I"]), ("reset_db", [])])
def test_script_runs_by_its_path_from_anywhere(
    script: str, options: list[str], configured: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    typed = ["--yes-drop", str(configured.url.database)] if script == "reset_db" else []

    done = run_python(*options, str(ROOT / "backend" / "scripts" / f"{script}.py"), *typed, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Database: .*, as configured\.\n", done.stderr)
    with configured.connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('companies') IS NOT NULL")) is True


def test_script_run_by_its_path_finds_a_database_like_nox(
    tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is configured and nothing listens on DB_PORT: the script does not wait and does not fail."""
    for package in ("backend", "devtools"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("tests"))
    monkeypatch.setenv("DB_PORT", str(unused_port))

    done = run_python(str(tmp_path / "backend" / "scripts" / "init_db.py"), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("No database found; using a temporary one. Your data is unchanged.")
    assert "initialised: from nothing to " in done.stdout


@pytest.mark.parametrize("module", [["devtools.database", "init"], ["devtools.dev"]])
def test_mistake_in_a_setting_is_reported_in_one_line(
    module: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_ENV", "prod")

    done = run_python("-m", *module)

    assert done.returncode == 1
    assert done.stderr.startswith("APP_ENV is invalid: ")
    assert done.stderr.count("\n") == 1


def test_exit_code_and_options_are_passed_on(configured: Engine) -> None:
    done = command("shell", "-v", "ON_ERROR_STOP=1", "-c", "SELECT nonsense")

    assert done.returncode == 1
    assert "nonsense" in done.stderr


def test_misspelt_option_is_refused_on_an_ephemeral_server_too() -> None:
    done = command("init", "--ephemeral", "--yes-dorp")

    assert done.returncode == 2
    assert "unrecognized arguments: --yes-dorp" in done.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_printed_without_looking_for_a_database(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APP_ENV", "prod")  # reading the settings would fail

    with pytest.raises(SystemExit, match="0"):
        database.main(["seed", option])

    said = capsys.readouterr()
    assert said.out.startswith("usage: nox -s db_seed -- ")
    assert said.err == "Every command also accepts --ephemeral: use a temporary server.\n"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "devtools.database", *arguments)
