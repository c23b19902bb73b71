"""`db_upgrade` in `.dev/`, with data of this machine's own PostgreSQL as the old data; e2e upgrades really old data."""

import json
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from backend.config import ROOT
from backend.errors import UserError
from devtools import database
from devtools.backup import postgres_upgrade, volume_upgrade
from freshpg import database_url, find_binaries, start_persistent

# The test injects this machine's programs as those of the old version.
COMMAND = """
import sys
from pathlib import Path
from devtools import database
from devtools.backup import postgres_upgrade
from devtools.command_line import enter
from freshpg import find_binaries
database.DIRECTORY = Path(sys.argv[1])
postgres_upgrade.find_binaries_of = lambda _: find_binaries()
enter(lambda: postgres_upgrade.main([]))
"""
CONTENT = """
    CREATE ROLE "old hand" LOGIN PASSWORD 'their own' CONNECTION LIMIT 7;
    CREATE ROLE crew; GRANT crew TO "old hand"; ALTER ROLE crew SET work_mem = '7MB';
    CREATE DATABASE "an 'other' one" OWNER crew;
    ALTER DATABASE "an 'other' one" SET default_transaction_read_only = on
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a `.dev/` for the test, and hide Docker."""
    place = tmp_path / ".dev"
    monkeypatch.setattr(database, "DIRECTORY", place / "postgres-18")
    monkeypatch.setattr(postgres_upgrade, "find_binaries_of", lambda _: find_binaries())
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.chdir(tmp_path)
    return place


@pytest.fixture
def old(place: Path) -> Path:
    with (
        start_persistent(place / "postgres-17") as server,
        psycopg.connect(server.url, autocommit=True) as connection,
    ):
        for statement in CONTENT.split(";"):
            connection.execute(statement.encode())
        with psycopg.connect(
            database_url(server.url, "an 'other' one"), options="-c default_transaction_read_only=off"
        ) as inside:
            inside.execute("CREATE TABLE things AS SELECT 42 AS answer")
            inside.execute("ALTER TABLE things OWNER TO crew")
    return place / "postgres-17"


def seen(directory: Path) -> list[object]:
    with start_persistent(directory) as server:
        url = database_url(server.url, "an 'other' one")
        with psycopg.connect(url) as connection:
            return [
                connection.execute(query).fetchall()
                for query in (
                    "SELECT answer, tableoid::regclass::text FROM things",
                    "SELECT tableowner FROM pg_tables WHERE tablename = 'things'",
                    "SELECT rolname, rolconnlimit, rolpassword FROM pg_authid WHERE rolname !~ '^p' ORDER BY 1",
                    "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = '\"old hand\"'::regrole",
                    "SELECT setconfig FROM pg_db_role_setting ORDER BY 1",
                    "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()",
                )
            ]


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        postgres_upgrade.main(list(arguments))
    return str(caught.value)


def test_everything_is_upgraded_and_the_old_data_are_kept_until_they_are_dropped(
    place: Path, old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = seen(old)
    with monkeypatch.context() as environment:
        environment.setenv("PGSSLMODE", "require")
        environment.setenv("PGOPTIONS", "-c nonsense=1")

        postgres_upgrade.main([])

    assert capsys.readouterr().out == (
        "Docker does not answer, so Compose's volume was not checked.\n"
        ".dev/postgres-18: from PostgreSQL 17 to 18.\n"
        ".dev/postgres-18 is upgraded. The old data are kept; "
        "`nox -s db_upgrade -- --drop-old` drops the data of PostgreSQL 17.\n"
    )
    assert seen(place / "postgres-18") == before == seen(old)
    postgres_upgrade.main([])
    assert "is already upgraded" in capsys.readouterr().out

    postgres_upgrade.main(["--drop-old"])

    assert {path.name for path in place.iterdir()} == {"postgres-18"}
    assert seen(place / "postgres-18") == before
    capsys.readouterr()
    postgres_upgrade.main(["--drop-old"])
    assert "No data of an older PostgreSQL were found." in capsys.readouterr().out


def test_upgrade_killed_at_any_moment_loses_nothing_and_the_next_one_works(
    place: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a killed one started may take longer to end.
    monkeypatch.setattr(postgres_upgrade, "ENDING_SECONDS", 60)
    before = seen(old)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", COMMAND, str(database.DIRECTORY)], cwd=ROOT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0.7, 2.5))
        process.kill()
        process.wait()

    postgres_upgrade.main([])

    assert seen(place / "postgres-18") == before == seen(old)
    assert {path.name for path in place.iterdir()} == {"postgres-17", "postgres-18"}


def test_new_data_that_were_not_made_from_the_old_are_left_alone(place: Path, old: Path) -> None:
    with start_persistent(place / "postgres-18"):
        pass

    for arguments in ([], ["--drop-old"]):
        assert refused(*arguments).startswith(
            ".dev/postgres-18 holds data of PostgreSQL 18 that `db_upgrade` did not copy from 17. Nothing was changed."
        )
    assert (old / "data").is_dir()


def test_data_of_another_version_than_was_upgraded_are_not_dropped(place: Path, old: Path) -> None:
    postgres_upgrade.main([])
    later = old.rename(place / "postgres-16")

    assert "did not copy from 16. Nothing was changed." in refused("--drop-old")
    assert (later / "data").is_dir()


def test_upgrade_refuses_data_in_use_missing_programs_and_a_second_upgrade(
    place: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_upgrade, "ENDING_SECONDS", 0.1)
    with start_persistent(old):
        assert "is in use" in refused()
    with postgres_upgrade.upgrade_lock():
        assert refused() == "Another db_upgrade is running. Wait until it has finished."
    monkeypatch.setattr(postgres_upgrade, "find_binaries_of", lambda _: None)
    assert "needs the programs of PostgreSQL 17" in refused()

    assert not (place / "postgres-18").exists()


def test_nothing_to_upgrade_is_reported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "postgres-17-mine").mkdir(parents=True)

    postgres_upgrade.main([])

    assert "No data of an older PostgreSQL were found." in capsys.readouterr().out


def test_image_without_a_version_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "name": "p",
        "volumes": {"db": {"name": "p_db"}},
        "services": {"db": {"image": "postgres:latest"}},
    }
    monkeypatch.setattr(volume_upgrade, "docker_says", lambda *_: json.dumps(config))

    assert volume_upgrade.find_volume() is None

    said = "The image postgres:latest names no version of PostgreSQL, so Compose's volume was not checked.\n"
    assert capsys.readouterr().out == said


def test_env_file_that_compose_cannot_read_is_not_called_a_missing_docker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(volume_upgrade, "docker_says", lambda *words: "" if words == ("version",) else None)

    assert volume_upgrade.find_volume() is None

    said = "Compose's volume was not checked: `docker compose config --quiet` says why.\n"
    assert capsys.readouterr().out == said
