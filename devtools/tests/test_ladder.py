"""Which database a command takes, what it says of it, and that nothing of the user's is touched on the way."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, make_url, text

from backend.config import ROOT, Settings, load_settings
from backend.database import connect
from devtools import database
from freshpg import Server, start_ephemeral

PASSWORD = "p@ : / % $ # ' \" ${HOME} end"


@pytest.fixture(autouse=True)
def no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the ladder look for its directory, and for Docker, where there is none."""
    directory = tmp_path / ".dev" / "postgres-18"
    monkeypatch.setattr(database, "DIRECTORY", directory)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    return directory


def settings(**values: object) -> Settings:
    return load_settings(_env_file=None, **values)


def composes(server: Server, password: str) -> Settings:
    """Describe a server as Compose's database: by its port on loopback, with the parts that Compose takes."""
    return settings(db_port=make_url(server.url).port, postgres_password=password)


def test_configured_database_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with database.find(settings(database_url="postgresql://u:secret@127.0.0.1:1/mine")) as found:
        assert make_url(found.url).database == "mine"

    assert capsys.readouterr().err == "Database: 127.0.0.1:1/mine, the one configured.\n"


def test_composes_database_is_taken_if_it_answers_whatever_its_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with start_ephemeral() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(PASSWORD))

        for password in (PASSWORD, "wrong"):
            mine = composes(server, password)
            with database.find(mine) as found:
                assert make_url(found.url).password == password
            port = mine.db_port
            expected = f"Database: 127.0.0.1:{port}/procore_integrator, Compose's, which answers on DB_PORT {port}.\n"
            assert capsys.readouterr().err == expected


def test_embedded_database_is_made_for_dev_and_then_found_by_all(
    unused_port: int, no_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = settings(db_port=unused_port)
    with database.find(mine, make=True) as made:
        write(made.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with database.find(mine) as found:
        assert read(found.url, "SELECT answer FROM kept") == 42

    # Where root has no user namespace, as in a container, another line says that the data had to be elsewhere.
    said = capsys.readouterr().err.splitlines()
    first, second = (line for line in said if line.startswith("Database: "))
    assert first == second
    assert "postgres-18, PostgreSQL 18." in first
    assert no_directory.is_dir()


def test_where_nothing_is_there_a_server_comes_and_goes(
    unused_port: int, no_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with database.find(settings(db_port=unused_port)) as found:
        assert found.is_ephemeral
        assert read(found.url, "SELECT 1") == 1

    said = capsys.readouterr().err
    assert f"an ephemeral one, for none is configured, none answers on DB_PORT {unused_port}" in said
    assert "Nothing of yours is changed." in said
    assert not no_directory.exists()


def test_ephemeral_on_request_beats_a_configured_database(configured: Engine) -> None:
    """The whole of init and reset runs there, and the configured database stays empty."""
    done = command("reset", "--ephemeral")

    assert done.returncode == 0, done.stderr
    assert "dropped table public.companies" in done.stdout
    assert "Nothing of yours was changed." in done.stderr
    with configured.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) == 0


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_backup_and_restoration_are_shown_on_request_and_leave_nothing(
    verb: str, configured: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = set((ROOT / "backups").glob("*"))

    done = command(verb, "--ephemeral")

    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^Backed up 127\.0\.0\.1:\d+/procore_integrator at revision \w+: /", done.stdout, re.MULTILINE
    )
    assert re.search(r"^Restored 127\.0\.0\.1:\d+/procore_integrator from /", done.stdout, re.MULTILINE)
    assert "Nothing of yours was changed." in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert set((ROOT / "backups").glob("*")) == before


def test_data_set_is_shown_on_a_server_that_comes_and_goes(configured: Engine) -> None:
    done = command("seed", "--ephemeral", "--seed", "3")

    assert done.returncode == 0, done.stderr
    assert "1,000 usage_logs" in done.stdout
    assert "Nothing of yours was changed." in done.stderr
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


def test_exit_code_and_options_are_passed_on(configured: Engine) -> None:
    done = command("shell", "-v", "ON_ERROR_STOP=1", "-c", "SELECT nonsense")

    assert done.returncode == 1
    assert "nonsense" in done.stderr


def test_misspelt_option_is_refused_on_an_ephemeral_server_too() -> None:
    done = command("init", "--ephemeral", "--yes-dorp")

    assert done.returncode == 2
    assert "unrecognized arguments: --yes-dorp" in done.stderr


@pytest.fixture
def configured(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("DATABASE_URL", empty_url)
    engine = connect(empty_url)
    yield engine
    engine.dispose()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devtools.database", *arguments],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def write(url: str, statement: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def read(url: str, statement: str) -> object:
    engine = connect(url)
    with engine.connect() as connection:
        value: object = connection.scalar(text(statement))
    engine.dispose()
    return value
