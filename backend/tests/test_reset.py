"""A reset drops whatever is there, once it is sure whose it is, and leaves a database whole wherever it is stopped."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from backend.config import ROOT
from backend.database import connect, reset_db, schema_state
from backend.errors import UserError
from backend.migrations import drop_all, environment_marker
from backend.migrations.drift import differences
from backend.models.models import Base
from backend.scripts import init_db as init_script
from backend.scripts import reset_db as reset_script
from freshpg import sqlalchemy_url, start_ephemeral

TABLES = {*Base.metadata.tables, "alembic_version"}


@pytest.fixture
def configured(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A development database at head, which the settings name and which bears its mark."""
    monkeypatch.setenv("DATABASE_URL", empty_url)
    init_script.main([])
    engine = connect(empty_url)
    yield engine
    engine.dispose()


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def ask(engine: Engine, query: str) -> object:
    with engine.connect() as connection:
        found: object = connection.scalar(text(query))
    return found


def reset_by_script(engine: Engine, *arguments: str) -> None:
    """Run it with the name typed, for a container's host is not always this machine's."""
    reset_script.main(["--yes-drop", str(engine.url.database), *arguments])


def is_whole(engine: Engine) -> bool:
    with engine.connect() as connection:
        return schema_state(connection).is_at_head and differences(connection) == []


EVERYTHING = """
    CREATE SCHEMA "other schema";
    CREATE TABLE "other schema"."a;b" (id serial);
    CREATE SCHEMA hollow;
    CREATE TABLE "we""ird %s :name" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
    CREATE TABLE child (id int REFERENCES "we""ird %s :name");
    CREATE TABLE parted (id int) PARTITION BY RANGE (id);
    CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9);
    CREATE VIEW v AS SELECT * FROM child;
    CREATE MATERIALIZED VIEW mv AS SELECT 1;
    CREATE SEQUENCE counter;
    CREATE TYPE mood AS ENUM ('good');
    CREATE TYPE pair AS (a int, b int);
    CREATE TYPE span AS RANGE (subtype = int);
    CREATE DOMAIN natural_number AS int CHECK (VALUE > 0);
    CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
    CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int);
    CREATE OPERATOR === (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int);
    CREATE COLLATION ours FROM "C";
    CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
    SELECT lo_create(4711);
"""
DROPPED = {
    'table "other schema"."a;b"', 'schema "other schema"', "schema hollow", 'table public."we""ird %s :name"',
    "table public.child", "table public.parted", "table public.part", "view public.v", "materialized view public.mv",
    "sequence public.counter", "type public.mood", "type public.pair", "type public.span", "type public.natural_number",
    "function public.f(integer)", "procedure public.p()", "aggregate public.total(integer)",
    "operator public.===(integer,integer)", "collation public.ours", "text search configuration public.words",
    "large object 4711",
}  # fmt: skip


def test_everything_goes_whatever_it_is_and_called_and_is_told(empty_engine: Engine) -> None:
    run(empty_engine, EVERYTHING)

    dropped = reset_db(empty_engine).dropped

    assert set(dropped) == DROPPED
    assert is_whole(empty_engine)
    assert set(reset_db(empty_engine).dropped) == {f"table public.{name}" for name in TABLES} | {
        "function public.keep_timestamps()"
    }


def test_what_belongs_to_an_extension_stays_with_its_schema(empty_engine: Engine) -> None:
    run(
        empty_engine,
        "CREATE EXTENSION citext",
        "CREATE SCHEMA extras; CREATE EXTENSION pg_trgm SCHEMA extras",
        "CREATE TABLE extras.ours (name citext)",
    )

    assert reset_db(empty_engine).dropped == ["table extras.ours"]
    assert ask(empty_engine, "SELECT extras.similarity('a', 'a')") == 1.0
    assert ask(empty_engine, "SELECT 'A'::citext = 'a'") is True


def test_what_would_object_goes_first() -> None:
    """An event trigger that forbids every DROP, which only a superuser can make: on a server where we are one."""
    with start_ephemeral() as server:
        engine = connect(sqlalchemy_url(server.url))
        run(
            engine,
            "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$no$$; END'",
            "CREATE TABLE old_jobs (id int)",
            "CREATE EVENT TRIGGER guard ON sql_drop EXECUTE FUNCTION forbid()",
            "CREATE PUBLICATION everything FOR ALL TABLES",
            "CREATE SCHEMA another; CREATE ROLE somebody; ALTER SCHEMA another OWNER TO somebody",
        )
        dropped = reset_db(engine).dropped
        whole = is_whole(engine)
        engine.dispose()

    assert {"event trigger guard", "publication everything", "schema another"} <= set(dropped)
    assert whole


def test_schema_of_another_role_is_left_alone() -> None:
    """What a role may not drop must not keep it from resetting its own."""
    with start_ephemeral() as server:
        administrator = connect(sqlalchemy_url(server.url))
        run(
            administrator,
            "CREATE ROLE owner LOGIN PASSWORD 'owner'",
            "CREATE SCHEMA theirs CREATE TABLE t (id int)",
        )
        with administrator.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ALTER DATABASE postgres OWNER TO owner"))
        ours = connect(administrator.url.set(username="owner", password="owner"))
        dropped = reset_db(ours).dropped
        whole = is_whole(ours)
        ours.dispose()
        left = ask(administrator, "SELECT to_regclass('theirs.t') IS NOT NULL")
        administrator.dispose()

    assert dropped == []
    assert whole
    assert left is True


def test_connection_of_ours_that_holds_on_idly_is_ended_and_told(configured: Engine) -> None:
    with psycopg.connect(
        str(configured.url.render_as_string(hide_password=False)).replace("+psycopg", ""),
        application_name="forgotten",
    ) as holder:
        holder.execute("SELECT * FROM companies")
        pid = holder.info.backend_pid

        [ended] = reset_db(configured).ended

        assert (ended.pid, ended.application, ended.is_idle) == (pid, "forgotten", True)
        assert "SELECT * FROM companies" in str(ended)
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
    assert is_whole(configured)


LONG_QUERY = """
import psycopg, sys
with psycopg.connect(sys.argv[1], application_name="long") as connection:
    connection.execute("LOCK TABLE precious IN ACCESS SHARE MODE; SELECT pg_sleep(60)")
"""


def test_connection_that_is_busy_is_told_and_left_and_nothing_is_dropped(configured: Engine) -> None:
    run(configured, "CREATE TABLE precious AS SELECT 42 AS answer")
    url = configured.url.render_as_string(hide_password=False).replace("+psycopg", "")
    process = subprocess.Popen([sys.executable, "-c", LONG_QUERY, url], stderr=subprocess.DEVNULL)
    try:
        wait_for(configured, "SELECT count(*) FROM pg_locks WHERE relation = 'precious'::regclass", 1)
        with pytest.raises(UserError) as caught:
            reset_by_script(configured, "--lock-timeout", "0.2")
    finally:
        process.kill()
        process.wait()
        run(
            configured,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'long'",
        )

    said = str(caught.value)
    assert said.startswith("Nothing was dropped: another connection has held a lock for 0.2 s.\n  pid ")
    assert "(long), busy for" in said
    assert "pg_terminate_backend(PID)" in said
    assert ask(configured, "SELECT answer FROM precious") == 42
    assert ask(configured, "SELECT count(*) FROM companies") == 0


def wait_for(engine: Engine, query: str, expected: object) -> None:
    deadline = time.monotonic() + 20
    while ask(engine, query) != expected:
        assert time.monotonic() < deadline, query
        time.sleep(0.02)


def test_lock_that_is_not_had_is_an_error_with_its_sqlstate(configured: Engine) -> None:
    """The lock of all that change the schema is not taken from who holds it: that may be a migration at work."""
    with configured.begin() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(hashtext('procore_integrator schema'))"))

        with pytest.raises(OperationalError) as caught:
            reset_db(configured, lock_timeout=0.05)
        with pytest.raises(UserError, match=r"\n  pid \d+ of .* idle in a transaction for "):
            reset_by_script(configured, "--lock-timeout", "0.05")

    assert getattr(caught.value.orig, "sqlstate", None) == "55P03"
    assert is_whole(configured)


def test_reset_takes_less_than_a_second(configured: Engine) -> None:
    """The best of five, for other work may run beside it."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        reset_db(configured)
        took.append(time.perf_counter() - began)

    assert min(took) < 1


RESET_AND_SAY_WHEN = """
import sys
from backend.database import connect, reset_db
from backend import migrations
migrations.head()
import alembic.command
engine = connect(sys.argv[1])
with engine.connect():
    pass
print("ready", flush=True)
sys.stdin.readline()
reset_db(engine)
"""


@pytest.mark.parametrize("milliseconds", [0, 5, 15, 30, 60, 120])
def test_reset_that_is_killed_leaves_all_or_nothing_and_the_next_puts_it_right(
    milliseconds: int, configured: Engine
) -> None:
    run(configured, "CREATE TABLE precious AS SELECT 42 AS answer")
    url = configured.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-c", RESET_AND_SAY_WHEN, url],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()

    # Its server process notices at its next word with the client.
    wait_for(configured, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
             " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", 0)  # fmt: skip
    with configured.connect() as connection:
        before = {name for name, _ in drop_all.contents(connection)}
        assert schema_state(connection).is_at_head
        assert environment_marker.read(connection) == "development"
    assert len(before) in (len(TABLES) + 1, len(TABLES) + 2)

    reset_by_script(configured)

    assert is_whole(configured)
    assert ask(configured, "SELECT to_regclass('precious') IS NULL") is True


def test_script_tells_what_it_dropped(configured: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    run(configured, "CREATE TABLE old_jobs (id int)")

    reset_by_script(configured)

    said = capsys.readouterr().out
    assert "dropped table public.old_jobs" in said
    assert f"{len(TABLES) + 2} things dropped, and built anew." in said
    assert is_whole(configured)
