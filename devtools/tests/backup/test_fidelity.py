"""What is restored is what was backed up, in all that pg_dump can say of a database, and is not believed unseen."""

import dataclasses
import json
import re
import secrets
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Engine, make_url

from backend.database import connect
from backend.scripts import init_db as init_script
from devtools.backup import archive, make, restore
from devtools.backup.figures import pin, read_figures
from devtools.backup.tools import Tools, find_tools
from freshpg import Server

from .support import Database, backup, command, query, refused, write_rows

PASSWORD = "p@ : / % $ # ' \" ${HOME} end"
EVERYTHING = r"""
    CREATE SCHEMA "other schema";
    COMMENT ON SCHEMA "other schema" IS 'It''s theirs';
    CREATE TABLE "other schema"."a;b %s c""d" (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "zu letzt" text, "a.b" numeric,
        twice numeric GENERATED ALWAYS AS ("a.b" * 2) STORED, thrice numeric GENERATED ALWAYS AS ("a.b" * 3) VIRTUAL);
    INSERT INTO "other schema"."a;b %s c""d" ("zu letzt", "a.b") VALUES (NULL, NULL), ('', 'NaN'),
        (E'\\ \t\n "\u00e9"', 1.50), ('(,)', 0);
    CREATE TABLE times (at timestamptz, day date, span interval, during tstzrange);
    INSERT INTO times VALUES ('infinity', '-infinity', '1 mon -3 days 00:00:00.000001', 'empty'),
        (NULL, NULL, NULL, NULL),
        ('0044-03-15 BC', '9999-12-31', '-1 year',
        '[2024-01-01T00:00:00Z,)'), ('2024-10-27T00:30:00.123456Z', NULL, NULL, NULL);
    CREATE TABLE kinds (b bytea, f float8, r real, j json, jb jsonb, a text[], m money, p point, u uuid,
        t tsvector,        bits bit varying, net inet);
    INSERT INTO kinds VALUES ('\x00ff5c', 0.1 + 0.2, 'Infinity', '{"a":  1, "a": 2}', '{"a": 1}', '{NULL,"NULL",""}',
        1234.56, '(1,2)', '00000000-0000-4000-8000-000000000001', 'a:1 b:2',
        B'101', '::1');
    CREATE TABLE nothing ();
    INSERT INTO nothing DEFAULT VALUES;
    CREATE TABLE dropped (gone int, stays text, times text); ALTER TABLE dropped DROP COLUMN gone;
    INSERT INTO dropped VALUES ('x', 'y');
    CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS one;
    CREATE TABLE parent (id int); CREATE TABLE child (more text) INHERITS (parent);
    INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 'two');
    CREATE TABLE parted (id int, at timestamptz) PARTITION BY RANGE (id);
    CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9);
    CREATE TABLE rest PARTITION OF parted DEFAULT;
    INSERT INTO parted VALUES (1, now()), (99, now());
    CREATE SEQUENCE counter INCREMENT -5 MINVALUE -100 MAXVALUE 100 START 50; SELECT nextval('counter');
    SELECT nextval('counter');
    CREATE SEQUENCE "un touched" START 42;
    CREATE TYPE mood AS ENUM ('sad', 'good'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE feelings (mood mood, strength positive); INSERT INTO feelings VALUES ('good', 3);
    CREATE VIEW v AS SELECT * FROM child; CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM parent;
    CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$no$$; END';
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON feelings FOR EACH ROW EXECUTE FUNCTION refuse();
    CREATE EXTENSION citext; CREATE TABLE loose (name citext); INSERT INTO loose VALUES ('A'), ('a');
    ALTER TABLE loose ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON loose USING (false);
    SELECT lo_from_bytea(4711, '\x0001'), lo_from_bytea(4712, decode(repeat('ab', 5000), 'hex'));
    COMMENT ON LARGE OBJECT 4711 IS 'a seal';
    CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION notice();
    CREATE PUBLICATION everything FOR ALL TABLES;
    CREATE STATISTICS together ON id, at FROM parted;
    UPDATE companies SET name = name || '!' WHERE id % 2 = 0;
"""


@pytest.fixture
def roles(server: Server) -> tuple[str, str]:
    owner, reader = (f"{each} {secrets.token_hex(4)}" for each in ("owner", "reader"))
    query(server.url, f'CREATE ROLE "{owner}"', f'CREATE ROLE "{reader}"')
    return owner, reader


@pytest.fixture
def everything(ours: Database, roles: tuple[str, str]) -> Database:
    owner, reader = roles
    write_rows(ours.driver_url, 100)
    ours.run(
        "CREATE FUNCTION notice() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END'",
        EVERYTHING,
        f'ALTER TABLE times OWNER TO "{owner}"; GRANT SELECT ON kinds TO "{reader}"',
        "GRANT ALL ON SEQUENCE counter TO PUBLIC",
        f'GRANT SELECT ON LARGE OBJECT 4711 TO "{reader}"',
        f'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "{reader}"',
        f'ALTER DATABASE {ours.quoted} OWNER TO "{owner}"',
        f"ALTER DATABASE {ours.quoted} SET timezone = 'Asia/Kathmandu'",
        f'ALTER DATABASE {ours.quoted} SET search_path = public, "other schema", "$user"',
        f"ALTER DATABASE {ours.quoted} SET our.word = 'it''s, \"so\" = \\n'",
        f"ALTER DATABASE {ours.quoted} SET default_transaction_read_only = on",
        f'ALTER ROLE "{reader}" IN DATABASE {ours.quoted} SET work_mem = \'7MB\'',
        f"ALTER DATABASE {ours.quoted} CONNECTION LIMIT 17",
        f"REVOKE CONNECT ON DATABASE {ours.quoted} FROM PUBLIC",
        f'GRANT CONNECT, CREATE ON DATABASE {ours.quoted} TO "{reader}" WITH GRANT OPTION',
        f"COMMENT ON DATABASE {ours.quoted} IS 'all of ''it'''",
    )  # fmt: skip
    return ours


def test_all_that_there_is_comes_back_as_it_was(
    everything: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything.dumped()
    backup()
    everything.run(
        "SET default_transaction_read_only = off",
        'DROP SCHEMA "other schema" CASCADE; DELETE FROM usage_logs; CREATE TABLE later ()',
    )

    restore.main([])

    assert everything.dumped() == before
    said = capsys.readouterr().out.splitlines()
    assert ": 19 tables, 140 rows, " in said[1]
    assert said[2].startswith(f'What was there before is kept as "{everything.name}_before_')
    assert everything.ask("SELECT count(*) FROM usage_logs") == 100
    assert everything.ask("SELECT rolconfig IS NULL AND datconnlimit = 17 FROM pg_database, pg_roles WHERE datname = "
                          "current_database() AND rolname = current_user") is True  # fmt: skip


def test_what_is_written_between_snapshot_and_dump_is_in_neither(
    ours: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API writes on meanwhile: what was counted and what was dumped must be of one moment."""

    def find_tools_that_wait(url: URL, major: int, *, compose_port: int) -> Tools:
        tools = find_tools(url, major, compose_port=compose_port)

        def command(program: str) -> list[str]:
            if program == "pg_dump":
                ours.run("INSERT INTO companies (name) VALUES ('Too late')", "SELECT nextval('users_id_seq')")
            return tools.command(program)

        return dataclasses.replace(tools, command=command)

    monkeypatch.setattr(make, "find_tools", find_tools_that_wait)

    backup()
    restore.main([])

    assert ours.ask("SELECT count(*) FROM companies") == 0
    assert ours.ask("SELECT nextval('users_id_seq')") == 2, (
        "a sequence may be ahead of the figures, and never behind"
    )


def test_file_says_what_it_is_and_is_this_users_alone(
    ours: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    path = backup()

    revision = ours.ask("SELECT version_num FROM alembic_version")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    said = capsys.readouterr().out
    assert f"{ours.name} at revision {revision}: {path}, " in said
    assert said.endswith(", 7 tables, 1 rows.\n")
    assert "postgres:" not in said
    with zipfile.ZipFile(path) as whole:
        assert whole.namelist() == ["database.dump", "manifest.json"]
        assert whole.read("database.dump").startswith(b"PGDMP")
        manifest = json.loads(whole.read("manifest.json"))
    assert manifest["database"] == ours.name
    made = re.sub(r"[-:]|\.\d+", "", manifest["made_at"])
    assert path.name == f"ours____theirs___s_{ours.name[-8:]}-{revision}-{made}.zip"


def test_figures_know_every_change_of_a_value_and_no_order(ours: Database) -> None:
    def figures() -> object:
        with make.direct(make_url(ours.driver_url)) as connection:
            pin(connection)
            return read_figures(connection)

    ours.run(
        "CREATE TABLE t (a text, b text, at timestamptz DEFAULT '2024-02-03T04:05:06Z')",
        "ALTER TABLE t ADD COLUMN f float8 DEFAULT 0.1::float8 + 0.2::float8",
        "INSERT INTO t VALUES ('1', NULL), ('2', '')",
    )
    before = figures()
    ours.run(
        "TRUNCATE t; INSERT INTO t VALUES ('2', ''), ('1', NULL)",
        f"ALTER DATABASE {ours.quoted} SET datestyle = 'German'",
        f"ALTER DATABASE {ours.quoted} SET timezone = 'Asia/Kathmandu'",
        f"ALTER DATABASE {ours.quoted} SET extra_float_digits = 0",
    )
    assert figures() == before
    for change in (
        "UPDATE t SET b = NULL",
        "UPDATE t SET b = '' WHERE a = '1'",
        "UPDATE t SET a = b, b = a",
        "DELETE FROM t",
    ):
        ours.run(change)
        assert figures() != before, change


@pytest.mark.parametrize("change", ["UPDATE companies SET name = 'other' WHERE id = 7", "DELETE FROM users"])
def test_what_is_not_what_was_backed_up_does_not_take_its_place(
    change: str, ours: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if pg_restore had lost or changed a row."""
    write_rows(ours.driver_url, 10)
    ours.run("INSERT INTO users (company_id, email) VALUES (1, 'a@b.example')")
    backup()
    whole = Tools.restore

    def spoilt(self: Tools, chunks: Iterator[bytes], url: object, *options: str) -> None:
        whole(self, chunks, url, *options)  # type: ignore[arg-type]  # passed on as it came
        [new] = [name for name in ours.beside() if "_new_" in name]
        Database(ours.server, new).run(change)

    monkeypatch.setattr(Tools, "restore", spoilt)
    ours.run("CREATE TABLE precious ()")

    said = refused()

    what = (
        "companies has 20 rows, but not the same" if "companies" in change else "users has 0 rows and not 1"
    )
    assert (
        said
        == f"What was restored is not what was backed up, and is dropped: table public.{what}. Nothing was changed."
    )
    assert ours.beside() == [ours.name]
    assert ours.ask("SELECT to_regclass('precious') IS NOT NULL") is True


def test_password_of_any_characters_is_known_to_the_tools_and_shown_to_nobody(
    ours: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    role = f"who {secrets.token_hex(4)}"
    with psycopg.connect(ours.server, autocommit=True) as connection:
        statement = sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}")
        connection.execute(statement.format(sql.Identifier(role), PASSWORD))
    url = make_url(ours.driver_url).set(username=role, password=PASSWORD)
    monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
    seen: list[list[str]] = []
    popen = subprocess.Popen

    class Watched(popen):  # type: ignore[misc, valid-type]  # it is the class that it was
        def __init__(self, command: list[str], **options: Any) -> None:  # noqa: ANN401  whatever it takes
            seen.append(command)
            super().__init__(command, **options)

    monkeypatch.setattr(subprocess, "Popen", Watched)

    backup()
    restore.main(["--drop-old"])

    said = capsys.readouterr()
    assert {Path(command[0]).name for command in seen} == {"pg_dump", "pg_restore"}
    assert not any("${HOME}" in str(word) for command in seen for word in command)
    assert PASSWORD not in said.out + said.err


def test_file_may_be_tried_on_a_server_that_comes_and_goes(ours: Database) -> None:
    path = backup()
    ours.run("CREATE TABLE precious ()")

    done = command(
        "devtools.database", "restore", "--ephemeral", str(path), DOCKER_HOST="unix:///nonexistent"
    )

    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^Restored 127\.0\.0\.1:\d+/procore_integrator from .*: 7 tables, 1 rows", done.stdout, re.MULTILINE
    )
    assert ours.ask("SELECT to_regclass('precious') IS NOT NULL") is True
    assert ours.beside() == [ours.name]


def test_large_table_comes_back(ours: Database) -> None:
    write_rows(ours.driver_url, 100_000)
    total = ours.ask("SELECT sum(quantity) FROM usage_logs")
    moments = "SELECT min(updated_at)::text || max(updated_at)::text FROM companies"
    before = ours.ask(moments)
    backup()

    restore.main(["--drop-old"])

    assert ours.ask("SELECT sum(quantity) FROM usage_logs") == total
    assert ours.ask(moments) == before, "the triggers did not fire"


def test_round_trip_on_the_run_s_own_server(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its version, and whoever we are there: an ordinary role that may create databases, at the least."""
    monkeypatch.setenv("DATABASE_URL", empty_url)
    monkeypatch.setattr(archive, "DIRECTORY", tmp_path)
    init_script.main([])
    engine: Engine = connect(empty_url)
    name = str(engine.url.database)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO companies (name) VALUES ('Kept')")
    backup()
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM companies")

    restore.main(["--yes-drop", name, "--drop-old"])

    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM companies").scalar() == "Kept"
    engine.dispose()
