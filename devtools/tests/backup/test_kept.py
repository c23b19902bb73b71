"""What was there before a restoration is kept, comes back, and goes only when it is told to."""

import pytest

from backend.errors import UserError
from devtools.backup import restore

from .support import Database, backup, query


def test_what_was_there_is_kept_whole_until_it_is_told_to_go(
    ours: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    backup()
    ours.run("CREATE TABLE precious AS SELECT 42 AS answer", f"COMMENT ON DATABASE {ours.quoted} IS 'mine'")

    restore.main([])

    name, kept = ours.beside()
    assert name == ours.name
    assert Database(ours.server, kept).ask("SELECT answer FROM precious") == 42
    comment = (
        "SELECT string_agg(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $$%s$$"
    )
    [(said,)] = query(ours.server, comment.replace("%s", kept, 1))
    assert said == f"Kept by db_restore: so it was when a backup took its place as the database {name}.\nmine"
    capsys.readouterr()

    restore.main(["--drop-kept"])
    restore.main(["--drop-kept"])

    assert ours.beside() == [ours.name]
    assert capsys.readouterr().out.splitlines() == [
        f'Dropped "{kept}".',
        f"Nothing was kept of {name} on this server.",
    ]


def test_database_that_was_dropped_comes_back(ours: Database, capsys: pytest.CaptureFixture[str]) -> None:
    path = backup()
    before = ours.dumped()
    query(ours.server, f"DROP DATABASE {ours.quoted}")
    with pytest.raises(UserError, match="There is no database"):
        restore.main(["--drop-kept"])
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        restore.main([str(path.parent)])
    assert ours.beside() == []

    restore.main([])

    assert ours.dumped() == before
    assert ours.beside() == [ours.name]
    assert capsys.readouterr().out.endswith("There was no such database before.\n")


def test_database_that_was_given_its_name_again_is_not_dropped_with_what_was_kept(ours: Database) -> None:
    backup()
    ours.run("CREATE TABLE precious AS SELECT 42 AS answer")
    restore.main([])
    _, kept = ours.beside()
    query(
        ours.server,
        f"DROP DATABASE {ours.quoted}",
        f"ALTER DATABASE {Database(ours.server, kept).quoted} RENAME TO {ours.quoted}",
    )

    restore.main(["--drop-kept"])

    assert ours.ask("SELECT answer FROM precious") == 42


def test_what_is_beside_a_database_whose_name_goes_on_is_left_alone(
    ours: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Database(ours.server, f"{ours.name}.b")
    query(ours.server, f"CREATE DATABASE {other.quoted} TEMPLATE at_head STRATEGY file_copy")
    path = backup()
    monkeypatch.setenv("DATABASE_URL", other.driver_url)
    restore.main([str(path), "--yes-drop", other.name])
    _, _, kept = ours.beside()
    monkeypatch.setenv("DATABASE_URL", ours.driver_url)

    restore.main([str(path), "--drop-old"])
    restore.main(["--drop-kept"])

    assert ours.beside() == [ours.name, other.name, kept]


def test_old_database_is_dropped_at_once_where_that_is_asked_for(ours: Database) -> None:
    backup()

    restore.main(["--drop-old"])

    assert ours.beside() == [ours.name]
