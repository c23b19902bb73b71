"""`db_backup` and `db_restore`, on databases of a separate server, which counts as local."""

import os
import random
import re
import secrets
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import psycopg
import pytest

from backend.config import ROOT
from backend.database import connect, init_db
from backend.errors import UserError
from backend.tests.support import wait_until
from devtools.backup import dump, restore, swap
from freshpg import Server, choose, database_url, find_clients, sqlalchemy_url

CONTENT = """
    CREATE SCHEMA "other schema";
    CREATE TABLE "other schema"."a %s ""b" (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n numeric, twice numeric GENERATED ALWAYS AS (n * 2) STORED);
    INSERT INTO "other schema"."a %s ""b" (n) VALUES (NULL), ('NaN'), (1.50);
    CREATE TYPE mood AS ENUM ('sad', 'fine', 'good', 'great');
    CREATE TABLE hashed (mood mood, n int) PARTITION BY HASH (mood);
    CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO hashed SELECT (enum_range(NULL::mood))[1 + n % 4], n FROM generate_series(1, 100) AS n;
    CREATE SEQUENCE counter START 42; SELECT nextval('counter');
    SELECT lo_from_bytea(4711, '\\x0001');
    CREATE TABLE times (at timestamptz); INSERT INTO times VALUES ('infinity'), (NULL)
"""


def query(url: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@dataclass
class Database:
    server: str
    name: str

    @property
    def quoted(self) -> str:
        return swap.quote(self.name)

    @property
    def url(self) -> str:
        return database_url(self.server, self.name)

    def run(self, *statements: str) -> None:
        query(self.url, *statements)

    def ask(self, statement: str) -> object:
        return query(self.url, statement)[0][0]

    def names(self) -> list[str]:
        """List this database and the ones that restores made from it."""
        found = query(self.server, "SELECT datname FROM pg_database ORDER BY datname")
        return [str(name) for (name,) in found if str(name).startswith(self.name)]

    def dumped(self) -> list[str]:
        """Return pg_dump's plain text, without the rows of `hashed`, which may change partitions."""
        command = [f"{find_clients(18)}/pg_dump", "--create", "--exclude-table-data=hashed_*", self.url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [line for line in said.splitlines() if not re.match(r"\\(un)?restrict ", line)]

    def made_by(self, role: str, options: str = "") -> str:
        """Create a role and return the URL with which it connects."""
        query(self.server, f"CREATE ROLE {role} LOGIN PASSWORD 'secret' {options}")
        server = psycopg.conninfo.conninfo_to_dict(self.server)
        return database_url(f"postgresql://{role}:secret@{server['host']}:{server['port']}/", self.name)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with choose("embedded").start() as server:
        query(server.url, "CREATE DATABASE at_head")
        engine = connect(sqlalchemy_url(database_url(server.url, "at_head")))
        init_db(engine, environment="development")
        engine.dispose()
        yield server


@pytest.fixture
def ours(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Configure a development database at head whose name has to be quoted."""
    database = Database(server.url, f'our "%s" {secrets.token_hex(4)}')
    query(server.url, f"CREATE DATABASE {database.quoted} TEMPLATE at_head")
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setattr(dump, "DIRECTORY", tmp_path / "backups")
    yield database
    for name in database.names():
        query(server.url, f"DROP DATABASE {swap.quote(name)} WITH (FORCE)")


def backup() -> Path:
    dump.main([])
    return dump.newest(str(psycopg.conninfo.conninfo_to_dict(os.environ["DATABASE_URL"])["dbname"]))


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        restore.main(list(arguments))
    return str(caught.value)


def start(verb: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "devtools.database", verb, str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_backup_is_one_private_file_that_pg_restore_reads(
    ours: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    path = backup()

    revision = ours.ask("SELECT version_num FROM alembic_version")
    assert re.fullmatch(rf"our%20%22%25s%22%20\w{{8}}-{revision}-\d{{8}}T\d{{6}}Z\.dump", path.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert f"{ours.name}, at revision {revision}, to {path} (" in capsys.readouterr().out
    command = [f"{find_clients(18)}/pg_restore", "--list", str(path)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "TABLE DATA public usage_logs" in listed.stdout


def test_backup_that_fails_leaves_no_file_and_replaces_none(
    ours: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, cure in (
        ("mine.dump", "choose another name."),
        ("mine.dump.partial", "if no backup is running."),
    ):
        (tmp_path / name).write_text("precious")
        with pytest.raises(UserError, match=f"/{name} exists already; .*{cure}$"):
            dump.main([str(tmp_path / "mine.dump")])
        assert (tmp_path / name).read_text() == "precious"
        (tmp_path / name).unlink()

    role = f"reader_{secrets.token_hex(4)}"
    monkeypatch.setenv("DATABASE_URL", ours.made_by(role))
    ours.run(f"GRANT SELECT ON alembic_version TO {role}")
    with pytest.raises(UserError, match="pg_dump failed"):
        dump.main([])
    assert "permission denied for" in capfd.readouterr().err
    assert list(dump.DIRECTORY.iterdir()) == []


def test_interrupted_backup_leaves_no_file_and_killed_backup_leaves_a_partial_one(
    ours: Database, tmp_path: Path
) -> None:
    dumps = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump'"
    for number, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
        with psycopg.connect(ours.url) as connection:
            connection.execute("LOCK TABLE usage_logs")  # pg_dump waits for it
            process = start("backup", tmp_path / "new" / "it.dump")
            while query(ours.server, f"{dumps} AND wait_event_type = 'Lock'") == [(0,)]:
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(number)
            process.wait()
        said = process.communicate()[0]  # pg_dump, which has the same output, may outlive a killed command
        wait_until(lambda: query(ours.server, dumps) == [(0,)], "pg_dump's session ends")

        assert process.returncode == code, said
        left = [path.name for path in (tmp_path / "new").iterdir()]
        assert left == ["it.dump.partial"] * (number is signal.SIGKILL)


def test_newest_backup_is_the_databases_own_with_the_latest_time_in_its_name(ours: Database) -> None:
    path = backup()
    older = path.with_name(re.sub(r"\d{8}T", "20200101T", path.name))
    older.write_bytes(b"")  # it is the newer file
    later = re.sub(r"\d{8}T", "29991231T", path.name)
    for others in (f"other-{later}", later.replace("%20", "_"), later.replace("%20", "-")):
        (path.parent / others).write_bytes(b"")
    (path.parent / path.name.replace(".dump", "-mine.dump")).write_bytes(b"")

    assert dump.newest(ours.name) == path


def test_restore_brings_everything_back_and_keeps_the_old_database(
    ours: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = f"owner {secrets.token_hex(4)}"
    query(ours.server, f'CREATE ROLE "{owner}"', f'ALTER DATABASE {ours.quoted} OWNER TO "{owner}"')
    ours.run(
        CONTENT, f'ALTER TABLE times OWNER TO "{owner}"', f"COMMENT ON DATABASE {ours.quoted} IS 'it''s'"
    )
    for setting in (
        "timezone = 'Asia/Kathmandu'",
        'search_path = public, "other schema"',
        "default_transaction_read_only = on",
    ):
        ours.run(f"ALTER DATABASE {ours.quoted} SET {setting}")  # fmt: skip
    before = ours.dumped()
    backup()
    ours.run(
        "SET default_transaction_read_only = off", 'DROP SCHEMA "other schema" CASCADE; CREATE TABLE later ()'
    )

    restore.main([])

    assert ours.dumped() == before
    # The row is found in its own partition.
    assert ours.ask("SELECT sum(n) FROM hashed WHERE mood = 'good'") == 1250
    assert ours.ask("SELECT count(*) FROM hashed") == 100
    assert ours.ask("SELECT obj_description('alembic_version'::regclass)") is not None, (
        "the environment's marker"
    )
    name, kept = ours.names()
    assert name == ours.name
    assert Database(ours.server, kept).ask("SELECT to_regclass('later') IS NOT NULL") is True
    assert f'kept as "{kept}". `nox -s db_restore -- --drop-old` drops it.' in capsys.readouterr().out


def test_locale_and_encoding_are_kept(ours: Database) -> None:
    options = "ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C' LC_COLLATE 'C' LC_CTYPE 'POSIX'"
    query(
        ours.server,
        f"DROP DATABASE {ours.quoted}",
        f"CREATE DATABASE {ours.quoted} TEMPLATE template0 {options}",
    )
    ours.run("CREATE TABLE alembic_version (version_num text)")
    ours.run("COMMENT ON TABLE alembic_version IS 'procore-integrator, development'")
    columns = "datlocprovider, datlocale, datcollate, datctype, encoding"
    locale = f"SELECT {columns} FROM pg_database WHERE datname = current_database()"
    before = query(ours.url, locale)
    backup()

    restore.main([])

    assert query(ours.url, locale) == before


def test_restore_works_while_clients_reconnect_immediately(ours: Database) -> None:
    ours.run("INSERT INTO companies (name) VALUES ('Backed up')")
    backup()
    ours.run("UPDATE companies SET name = 'Later'")
    seen: set[str] = set()
    ended, failed = 0, list[str]()
    is_over = threading.Event()

    def use() -> None:
        nonlocal ended
        while not is_over.is_set():
            try:
                with psycopg.connect(ours.url, autocommit=True) as connection:
                    while not is_over.wait(0.002):
                        seen.add(connection.execute("SELECT name FROM companies").fetchall()[0][0])
            except psycopg.errors.AdminShutdown:
                ended += 1
            except psycopg.Error as error:
                failed.append(str(error))

    clients = [threading.Thread(target=use) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        restore.main([])
        wait_until(lambda: "Backed up" in seen, "a client reads what was restored")
    finally:
        is_over.set()
        for client in clients:
            client.join()

    assert seen == {"Later", "Backed up"}
    assert ended
    # The errors that a client may see if it is connected, or connects, at that moment.
    words = ("seems to have just been dropped or renamed", "terminating connection", "closed the connection")
    assert all(any(word in error for word in words) for error in failed), failed


def test_restore_that_fails_changes_nothing(ours: Database) -> None:
    ours.run("CREATE TABLE large AS SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n")
    path = backup()
    cut = path.with_name("cut.dump")
    cut.write_bytes(path.read_bytes()[:-100_000])
    before = ours.dumped()

    assert "The backup was not restored. Nothing was changed." in refused(str(cut))

    assert ours.names() == [ours.name]
    assert ours.dumped() == before


def test_function_that_relies_on_the_search_path_is_reported_with_a_cure(
    ours: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    ours.run(
        "CREATE FUNCTION inner_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
        "CREATE FUNCTION outer_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT inner_one($1)'",
        "CREATE TABLE generated (a int, b int GENERATED ALWAYS AS (outer_one(a)) STORED)",
        "INSERT INTO generated VALUES (1)",
    )
    backup()

    said = refused()

    assert "function inner_one(integer) does not exist" in capfd.readouterr().err
    assert "Nothing was changed. docs/backup.md lists known causes." in said
    ours.run("ALTER FUNCTION outer_one SET search_path = public")
    dump.main([str(dump.DIRECTORY / "cured.dump")])
    restore.main([str(dump.DIRECTORY / "cured.dump")])
    assert ours.ask("SELECT b FROM generated") == 1


def test_restore_killed_at_any_moment_loses_nothing(ours: Database) -> None:
    ours.run("CREATE TABLE state AS SELECT 'backed up' AS word")
    path = backup()
    ours.run("UPDATE state SET word = 'current'")
    for _ in range(4):
        process = start("restore", path)
        time.sleep(random.uniform(0.7, 3.0))
        process.kill()
        process.communicate()
        kept = [name for name in ours.names() if swap.NEW not in name]
        states = [Database(ours.server, name).ask("SELECT word FROM state") for name in kept]
        assert "current" in states
        assert ours.ask("SELECT word FROM state") in ("current", "backed up")

    # The server finishes the statement of a restore that was killed, and holds its lock until then.
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    wait_until(lambda: query(ours.server, locks) == [(0,)], "the last restore's session ends", 60)
    restore.main([str(path)])

    assert ours.ask("SELECT word FROM state") == "backed up"
    assert not [name for name in ours.names() if swap.NEW in name]


def test_one_restore_runs_at_a_time(ours: Database) -> None:
    backup()
    engine = connect(sqlalchemy_url(ours.url))
    with swap.restore_lock(engine.url):
        assert refused() == f"Another db_restore of {ours.name} is running. Wait until it has finished."
    engine.dispose()
    assert ours.names() == [ours.name]


def test_restores_within_one_second_keep_each_old_database(ours: Database) -> None:
    engine = connect(sqlalchemy_url(ours.url))
    with swap.restore_lock(engine.url) as connection:
        for _ in range(3):
            swap.replace(connection, ours.name, swap.create(connection, ours.name))
    engine.dispose()
    assert len(ours.names()) == 4


def test_drop_old_drops_old_databases_but_not_one_that_was_renamed_back(ours: Database) -> None:
    backup()
    ours.run("CREATE TABLE precious AS SELECT 42 AS answer")
    restore.main([])
    _, kept = ours.names()
    back = f"ALTER DATABASE {swap.quote(kept)} RENAME TO {ours.quoted}"
    query(ours.server, f"DROP DATABASE {ours.quoted}", back)

    restore.main(["--drop-old"])

    assert ours.names() == [ours.name]
    restore.main([])
    assert len(ours.names()) == 2
    restore.main(["--drop-old"])
    assert ours.names() == [ours.name]


def test_session_that_this_role_may_not_end_stops_the_restore(
    ours: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"owner_{secrets.token_hex(4)}"
    path = backup()
    monkeypatch.setenv("DATABASE_URL", ours.made_by(role, "CREATEDB"))
    query(ours.server, f"ALTER DATABASE {ours.quoted} OWNER TO {role}")

    with psycopg.connect(ours.url) as connection:
        said = refused(str(path), "--no-owner", "--yes-drop", ours.name)
        assert connection.execute("SELECT 1").fetchone() == (1,)

    assert "this role may not end" in said
    assert ours.names() == [ours.name]


def test_restore_refuses_production_unmarked_databases_and_unknown_revisions(
    ours: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = backup()
    ours.run("UPDATE alembic_version SET version_num = 'unknown'")
    assert "is at revision unknown, which this code" in refused(str(backup()))
    ours.run("COMMENT ON TABLE alembic_version IS NULL")
    said = refused(str(known), "--no-owner", "--yes-drop", "other")
    assert "Nothing was changed in" in said
    assert f"`nox -s db_restore -- --yes-drop {quote(ours.name)} {known} --no-owner`" in said
    said = refused("--drop-old")
    assert f"earlier restores kept: `nox -s db_restore -- --yes-drop {quote(ours.name)} --drop-old`" in said
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("API_TOKEN", "x" * 32)
    assert "a production database is never replaced" in refused(str(known), "--yes-drop", ours.name)

    assert ours.names() == [ours.name]


def test_file_that_is_not_a_backup_is_refused(ours: Database, tmp_path: Path) -> None:
    (tmp_path / "it").write_text("no")

    assert "The backup was not restored. Nothing was changed." in refused(str(tmp_path / "it"))
    assert "cannot be read: Is a directory" in refused(str(tmp_path))
    assert "has no backup of our" in refused()
    assert ours.names() == [ours.name]
