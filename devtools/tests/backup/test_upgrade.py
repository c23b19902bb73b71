"""What an upgrade of the embedded server's data refuses. That it works, and Compose's volume, is tried end to end."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from backend.config import load_settings
from backend.errors import UserError
from devtools import database
from devtools.backup import archive, directory, upgrade
from devtools.backup.carry import carry
from devtools.backup.containers import Side
from devtools.backup.tools import find_tools
from freshpg import Server, sqlalchemy_url, start_persistent

from .support import query


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `.dev/` of the test's own, and no Docker."""
    monkeypatch.setattr(database, "DIRECTORY", tmp_path / ".dev" / "postgres-18")
    monkeypatch.setattr(archive, "DIRECTORY", tmp_path / "backups")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".dev"


def make_data(place: Path, name: str, *, made_from: str = "") -> Path:
    data = place / name / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text(name.rpartition("-")[2])
    if made_from:
        (place / name / "upgraded-from").write_text(made_from)
    return place / name


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        upgrade.main(list(arguments))
    return str(caught.value)


def contents(place: Path) -> set[Path]:
    return set(place.rglob("*"))


def test_where_there_is_nothing_old_that_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data(place, "postgres-18")
    (place / "postgres-17.mine").mkdir()

    upgrade.main([])

    assert capsys.readouterr().out == (
        "Docker does not answer, so Compose's volume was not looked at.\n"
        "Nothing to upgrade: no data of an older PostgreSQL were found.\n"
    )


def test_programs_of_the_old_version_that_are_nowhere_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "find_binaries_of", lambda _: None)
    make_data(place, "postgres-17")
    before = contents(place)

    said = refused()

    assert said.startswith(
        ".dev/postgres-17 needs the programs of PostgreSQL 17, which are not on this machine. Nothing was changed.\n"
    )
    assert contents(place) == before


def test_data_in_use_are_not_replaced_nor_dropped_by_mistake(place: Path) -> None:
    make_data(place, "postgres-15")
    make_data(place, "postgres-18")
    before = contents(place)

    assert ".dev/postgres-18 was not made from .dev/postgres-15, and is the one in use." in refused()
    assert ".dev/postgres-15 is kept, for .dev/postgres-18 was not made from it." in refused("--drop-old")
    assert contents(place) == before


def test_old_data_are_dropped_when_told_and_once_they_were_upgraded(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(place, "postgres-15")
    make_data(place, "postgres-18", made_from="15")
    aside = make_data(place, "postgres-18.aside-20260101T000000Z")
    (place / "beside the data").touch()
    (aside / "data").rename(place / "a person's")
    (aside / "data").symlink_to(place / "a person's")

    upgrade.main([])
    assert "PostgreSQL 18 already, made from 15's data, which are kept." in capsys.readouterr().out
    upgrade.main(["--drop-old"])

    assert sorted(path.name for path in place.iterdir()) == ["beside the data", "postgres-18"]


def test_server_that_runs_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_PATIENCE_SECONDS", 0.0)
    make_data(place, "postgres-15")

    with start_persistent(place / "postgres-18"):
        assert ".dev/postgres-18 is in use: end the command that runs it." in refused("--anew")

    assert (place / "postgres-18" / "data" / "PG_VERSION").exists()


def test_one_upgrade_runs_at_a_time(place: Path) -> None:
    with upgrade.alone():
        assert refused() == "Another db_upgrade is at work. Wait until it is done."


def test_start_that_would_make_new_data_tells_of_the_old(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(place, "postgres-17")

    with database.find_own(load_settings(_env_file=None, db_port=1), make=True):
        pass

    said = capsys.readouterr().err
    assert (
        ".dev/postgres-17 holds an older PostgreSQL's data: `nox -s db_upgrade` brings them along.\n" in said
    )


def test_database_that_takes_no_connections_is_named_and_not_left_behind(server: Server) -> None:
    query(server.url, "CREATE DATABASE shut", "ALTER DATABASE shut ALLOW_CONNECTIONS false")
    url = make_url(sqlalchemy_url(server.url))
    side = Side(url, find_tools(url, int(server.version.partition(".")[0]), compose_port=0))
    try:
        with pytest.raises(UserError, match=r"take no connections, so none can be read: shut\."):
            carry(side, side)
    finally:
        query(server.url, "DROP DATABASE shut")
