"""What is not to be restored, or not here, or not by us, is refused in a line or two before anything is touched."""

import json
import secrets
import zipfile
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import psycopg
import pytest
from sqlalchemy import make_url

from backend.database import connect, init_db
from backend.errors import UserError
from devtools.backup import archive, beside, make, restore, tools
from freshpg import find_clients, start_persistent

from .support import Database, backup, command, query, refused

TOKEN = "t" * 32


def is_untouched(database: Database) -> bool:
    return database.beside() == [database.name] and database.ask("SELECT count(*) FROM companies") == 1


@pytest.fixture
def path(ours: Database) -> Path:
    """A backup; the database has a row more than that."""
    found = backup()
    ours.run("INSERT INTO companies (name) VALUES ('Only here')")
    return found


def change(path: Path, **values: object) -> None:
    """Write the backup anew, its manifest changed."""
    with zipfile.ZipFile(path) as whole:
        dump, manifest = whole.read("database.dump"), json.loads(whole.read("manifest.json"))
    with zipfile.ZipFile(path, "w") as whole:
        whole.writestr("database.dump", dump)
        whole.writestr("manifest.json", json.dumps(manifest | values))


def test_production_is_never_replaced(ours: Database, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = connect(ours.driver_url)
    init_db(engine, environment="production")
    engine.dispose()
    assert "by its own mark it is production's, whatever APP_ENV says here" in refused(
        "--yes-drop", ours.name
    )
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("API_TOKEN", TOKEN)
    assert "a production database is never replaced by a backup" in refused("--yes-drop", ours.name)
    assert is_untouched(ours)


def test_database_without_a_mark_wants_its_name_typed(ours: Database, path: Path) -> None:
    ours.run("COMMENT ON TABLE alembic_version IS NULL")

    said = refused()

    assert said.startswith("Nothing was replaced in 127.0.0.1:")
    assert "It bears no mark of development or test, so it may be somebody else's." in said
    assert f"`nox -s db_restore -- --yes-drop {quote(ours.name)}`" in said
    assert "The name typed is 'other'" in refused("--yes-drop", "other")
    assert "It bears no mark" in refused("--drop-kept")
    assert is_untouched(ours)
    restore.main(["--yes-drop", ours.name])
    assert ours.ask("SELECT count(*) FROM companies") == 0


def cut(length: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:length]


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut(-1), "is not whole: it was cut or changed"),
        (cut(20_000), "is not whole: it was cut or changed"),
        (cut(10), "is not whole: it was cut or changed"),
        (cut(0), "is no backup of `nox -s db_backup`"),
        (flip(20_000), "is not whole: it was cut or changed"),
        (flip(200), "is not whole: it was cut or changed"),
        (lambda _: b"CREATE TABLE companies ();\n", "is no backup of `nox -s db_backup`"),
        (lambda _: b"PGDMP\x01\x10", "is pg_dump's own, and has no figures to be verified by"),
    ],
)
def test_what_is_no_whole_backup(
    spoil: Callable[[bytes], bytes], said: str, ours: Database, path: Path
) -> None:
    path.write_bytes(spoil(path.read_bytes()))

    assert refused(str(path)).startswith(f"{path} {said}")
    with pytest.raises(UserError, match=said[:20]), archive.reading(path):
        pass
    assert is_untouched(ours)


def test_any_bit_of_the_zip_s_own_that_is_flipped_is_told_or_harmless(ours: Database, path: Path) -> None:
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as found:
        headers = [entry.header_offset for entry in found.infolist()]
        directory = range(found.start_dir, len(whole))
        dump = found.read("database.dump")
    told = 0

    for place in (*directory, *(start + offset for start in headers for offset in range(30))):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                with archive.reading(path) as read:
                    assert b"".join(read.chunks()) == dump
            except UserError:
                told += 1

    assert told > 500


def test_manifest_of_any_length_is_not_read(ours: Database, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("database.dump", b"PGDMP")
        bomb.writestr("manifest.json", b" " * (65 << 20))

    assert "is not whole: it was cut or changed" in refused(str(path))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"server_version": "99.1"}, "was made on PostgreSQL 99, and this server is "),
        ({"server_version": "99beta1"}, "was made on PostgreSQL 99, and this server is "),
        ({"server_version": "of old"}, "is a zip, but no backup of `nox -s db_backup`"),
        ({"revision": "0123456789ab"}, "is at revision 0123456789ab, which this code does not know"),
        (
            {"format": 2, "figures": "of another kind"},
            "was made by newer code (its format is 2, and 1 is known here)",
        ),
        ({"figures": None}, "is a zip, but no backup of `nox -s db_backup`"),
    ],
)
def test_what_does_not_fit_here(values: dict[str, object], said: str, ours: Database, path: Path) -> None:
    change(path, **values)

    answer = refused(str(path))

    assert answer.startswith(f"{path} {said}")
    assert "Nothing was changed." in answer
    assert is_untouched(ours)


def test_another_database_s_backup_is_taken_only_where_it_is_named(ours: Database, path: Path) -> None:
    """`a-b` and `a_b` are the same in a file's name."""
    change(path, database=ours.name.replace(" ", "-"))

    assert f"and of the database {ours.name.replace(' ', '-')}, not of {ours.name}." in refused()
    assert is_untouched(ours)
    restore.main([str(path)])
    assert ours.ask("SELECT count(*) FROM companies") == 0


def test_what_is_in_the_zip_must_be_pg_dumps(ours: Database, path: Path) -> None:
    with zipfile.ZipFile(path) as whole:
        manifest = whole.read("manifest.json")
    with zipfile.ZipFile(path, "w") as whole:
        whole.writestr("database.dump", b"PGDMP and then nothing of the kind")
        whole.writestr("manifest.json", manifest)

    answer = refused(str(path))

    assert answer.startswith(f"{path} cannot be read by pg_restore in ")
    assert answer.endswith("Nothing was changed.")
    assert is_untouched(ours)


def test_another_zip_and_what_is_no_file(ours: Database, path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("holiday.jpg", b"...")

    assert "is a zip, but no backup" in refused(str(tmp_path / "other.zip"))
    assert "nowhere.zip cannot be read: No such file or directory." in refused(str(tmp_path / "nowhere.zip"))
    assert "cannot be read: Is a directory." in refused(str(tmp_path))
    path.unlink()
    assert "There is no backup of ours & " in refused()
    assert is_untouched(ours)


def test_roles_that_are_not_here_are_named_and_may_be_left_out(ours: Database, tmp_path: Path) -> None:
    role = f"who {secrets.token_hex(4)}"
    ours.run(f'CREATE ROLE "{role}"; CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO "{role}"')
    ours.run(f'GRANT CREATE ON DATABASE {ours.quoted} TO "{role}"')
    path = backup()
    ours.run("INSERT INTO companies (name) VALUES ('Only here')")
    ours.run(f'REASSIGN OWNED BY "{role}" TO CURRENT_USER; DROP OWNED BY "{role}"; DROP ROLE "{role}"')

    answer = refused()

    assert answer.startswith(f"{path} speaks of roles that are not on this server: {role}.")
    assert is_untouched(ours)
    restore.main(["--no-owner"])
    assert ours.ask("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'theirs'") == "postgres"


def test_extensions_that_are_not_here_are_named(ours: Database, path: Path) -> None:
    with zipfile.ZipFile(path) as whole:
        properties = json.loads(whole.read("manifest.json"))["properties"]
    change(path, properties=properties | {"extensions": ["plpgsql", "time_travel"]})

    assert "needs extensions that are not on this server: time_travel." in refused()
    assert is_untouched(ours)


def test_other_restoration_at_work_is_left_to_it(ours: Database, path: Path) -> None:
    with psycopg.connect(ours.server, autocommit=True) as other, beside.alone(other, ours.name):
        assert f"Another db_restore of {ours.name} is at work." in refused()
    assert is_untouched(ours)


def test_role_that_may_make_no_database_is_told_what_it_lacks(
    ours: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"plain_{secrets.token_hex(4)}"
    ours.run(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://{role}:plain@{ours.driver_url.rpartition('@')[2]}")

    assert "(`ALTER ROLE ... CREATEDB`)" in refused(str(path), "--no-owner", "--yes-drop", ours.name)
    assert is_untouched(ours)


def test_who_is_not_ours_to_end_is_named_and_nothing_is_changed(
    ours: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary role cannot end a superuser's connection."""
    role = f"plain_{secrets.token_hex(4)}"
    ours.run(
        f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD 'plain'",
        f"ALTER DATABASE {ours.quoted} OWNER TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
    )
    place = ours.driver_url.rpartition("@")[2]
    monkeypatch.setenv("DATABASE_URL", f"postgresql://{role}:plain@{place}")
    path.unlink()
    mine = backup()
    with psycopg.connect(ours.url, application_name="their psql") as theirs:
        pid = theirs.info.backend_pid
        answer = refused(str(mine), "--no-owner")
        assert theirs.execute("SELECT 1").fetchone() == (1,)

    assert f"is in use by what is not ours to end: pid {pid} of postgres (their psql)." in answer
    assert is_untouched(ours)


def test_role_s_deadlines_are_not_for_what_takes_long(ours: Database) -> None:
    role = f"hurried_{secrets.token_hex(4)}"
    ours.run(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_session_timeout",
        "idle_in_transaction_session_timeout",
    )
    ours.run(*(f"ALTER ROLE {role} SET {name} = '1h'" for name in names))
    url = make_url(f"postgresql+psycopg://{role}:plain@{ours.driver_url.rpartition('@')[2]}")

    with make.direct(url) as connection:
        found = {connection.execute(f"SHOW {name}".encode()).fetchone() for name in names}
    ours.run(f"DROP ROLE {role}")

    assert found == {("0",)}


def test_prepared_transaction_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_persistent(tmp_path / "server") as server:
        query(server.url, "ALTER SYSTEM SET max_prepared_transactions = 1")
    with start_persistent(tmp_path / "server") as server:
        ours = Database(server.url, "ours")
        query(server.url, "CREATE DATABASE ours")
        monkeypatch.setenv("DATABASE_URL", ours.driver_url)
        path = backup(tmp_path / "ours.zip")
        ours.run("BEGIN", "CREATE TABLE theirs ()", "PREPARE TRANSACTION 'not done'")
        monkeypatch.setattr(restore, "fill", None)

        assert "ours is in use by what is not ours to end: the prepared transaction 'not done'." in refused(
            str(path)
        )


def test_backup_takes_no_name_that_is_taken_and_no_place_that_is_not_there(
    ours: Database, tmp_path: Path
) -> None:
    (tmp_path / "mine.zip").write_text("precious")

    with pytest.raises(UserError, match=r"mine\.zip is there already, and is left as it is"):
        make.main([str(tmp_path / "mine.zip")])
    with pytest.raises(UserError, match=r"a\.zip cannot be written: No such file or directory\."):
        make.main([str(tmp_path / "not" / "there" / "a.zip")])

    assert (tmp_path / "mine.zip").read_text() == "precious"
    assert [each.name for each in tmp_path.iterdir()] == ["mine.zip"]


def test_backup_that_fails_leaves_no_file(
    ours: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row security would hide rows, which no backup must."""
    role = f"reader_{secrets.token_hex(4)}"
    ours.run(
        f"CREATE ROLE {role} LOGIN PASSWORD 'plain'; GRANT pg_read_all_data TO {role}",
        "CREATE TABLE guarded (); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
    )
    place = ours.driver_url.rpartition("@")[2]

    done = command(
        "devtools.backup.make",
        str(tmp_path / "a.zip"),
        DATABASE_URL=f"postgresql://{role}:plain@{place}",
    )

    assert done.returncode == 1
    assert (
        'PostgreSQL refused: query would be affected by row-level security policy for table "guarded".'
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tools_of_another_version_will_not_do(ours: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.setattr(tools, "find_clients", lambda _: None)

    with pytest.raises(UserError) as caught:
        make.main([])

    assert "no pg_dump and pg_restore of that version are on this machine.\nInstall them" in str(caught.value)
    assert find_clients(12345) is None


def test_file_that_another_user_could_have_prepared_is_not_followed(ours: Database, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / ".a.zip.partial").symlink_to(target)

    with pytest.raises(UserError, match=r"a\.zip cannot be written: File exists\."):
        make.main([str(tmp_path / "a.zip")])

    assert not target.exists()


def test_what_a_killed_backup_left_goes_with_the_next(ours: Database, tmp_path: Path) -> None:
    (tmp_path / ".old.zip.partial").write_text("half")
    (tmp_path / ".a.backup.partial").write_text("half")

    make.main([str(tmp_path / "a.backup")])

    assert [each.name for each in tmp_path.iterdir()] == ["a.backup"]
