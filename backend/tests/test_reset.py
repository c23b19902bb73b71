"""A reset drops everything or nothing, and only in a database for development or test."""

import os
import pty
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import count

import psycopg
import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from backend import migrations
from backend.database import connect, init_db, reset_db, schema_state
from backend.errors import UserError
from backend.migrations import environment_marker
from backend.migrations.drift import differences
from backend.models.models import Base
from backend.scripts import init_db as init_script
from backend.scripts import reset_db as reset_script
from backend.scripts import safety
from backend.startup import database_errors_reported
from backend.tests.support import ask, execute
from freshpg import Server, ensure_database, sqlalchemy_url, start_ephemeral

TOKEN = "t" * 32
numbers = count()
TABLES = {*Base.metadata.tables, "alembic_version"}


@pytest.fixture
def configured(empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Configure a database at head that is marked as development."""
    monkeypatch.setenv("DATABASE_URL", empty_engine.url.render_as_string(hide_password=False))
    init_script.main([])
    return empty_engine


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Start a server on this machine, where we are the superuser; a container's host may be remote."""
    with start_ephemeral() as server:
        yield server


@pytest.fixture
def near(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Configure an empty database of that server."""
    url = ensure_database(server.url, f"near_{next(numbers)}")
    monkeypatch.setenv("DATABASE_URL", url)
    engine = connect(sqlalchemy_url(url))
    yield engine
    engine.dispose()


def reset_by_script(engine: Engine) -> None:
    """Run the script with the typed name, because a container's host may be remote."""
    reset_script.main(["--yes-drop", str(engine.url.database)])


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


def test_everything_is_dropped_and_listed_whatever_it_is(empty_engine: Engine) -> None:
    execute(empty_engine, EVERYTHING)

    dropped = reset_db(empty_engine)

    assert set(dropped) == DROPPED
    assert is_whole(empty_engine)
    assert set(reset_db(empty_engine)) == {f"table public.{name}" for name in TABLES} | {
        "function public.keep_timestamps()"
    }


def test_extension_stays_with_its_schema(empty_engine: Engine) -> None:
    execute(
        empty_engine,
        "CREATE EXTENSION citext",
        "CREATE SCHEMA extras; CREATE EXTENSION pg_trgm SCHEMA extras",
        "CREATE TABLE extras.ours (name citext)",
    )

    assert reset_db(empty_engine) == ["table extras.ours"]
    assert ask(empty_engine, "SELECT extras.similarity('a', 'a')") == 1.0
    assert ask(empty_engine, "SELECT 'A'::citext = 'a'") is True


def test_event_trigger_that_forbids_drops_is_dropped_first(near: Engine) -> None:
    """Only a superuser can create such a trigger."""
    execute(
        near,
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$no$$; END'",
        "CREATE EVENT TRIGGER guard ON sql_drop EXECUTE FUNCTION forbid()",
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "CREATE SCHEMA another; CREATE ROLE somebody; ALTER SCHEMA another OWNER TO somebody",
    )

    assert {"event trigger guard", "publication everything", "schema another"} <= set(reset_db(near))
    assert is_whole(near)


def test_schema_of_another_role_is_left_alone(near: Engine) -> None:
    execute(
        near,
        "CREATE ROLE owner LOGIN PASSWORD 'owner'",
        "CREATE SCHEMA theirs CREATE TABLE t (id int)",
        f"ALTER DATABASE {near.url.database} OWNER TO owner",
    )
    ours = connect(near.url.set(username="owner", password="owner"))

    assert reset_db(ours) == []
    assert is_whole(ours)
    assert ask(near, "SELECT to_regclass('theirs.t') IS NOT NULL") is True
    ours.dispose()


def test_busy_connection_is_listed_and_nothing_is_dropped(configured: Engine) -> None:
    execute(configured, "CREATE TABLE precious AS SELECT 42 AS answer")
    url = configured.url.render_as_string(hide_password=False).replace("+psycopg", "")
    with psycopg.connect(url, application_name="long") as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("LOCK TABLE precious IN ACCESS SHARE MODE")
        query = pool.submit(connection.execute, "SELECT pg_sleep(60)")
        wait_for(
            configured,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^SELECT pg_sleep'",
            1,
        )
        with pytest.raises(UserError) as caught, database_errors_reported(configured):
            reset_db(configured, lock_timeout=0.2)
        connection.cancel()
        assert isinstance(query.exception(), psycopg.errors.QueryCanceled)

    said = str(caught.value)
    assert re.match(
        r"Not done in \S+: another connection holds a lock\. It may be one of these:\n  pid ", said
    )
    assert "(long), busy for" in said
    assert "pg_terminate_backend(PID)" in said
    assert ask(configured, "SELECT answer FROM precious") == 42
    assert ask(configured, "SELECT count(*) FROM companies") == 0


def test_reset_that_fails_after_the_drops_changes_nothing(
    configured: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is injected where the schema would be created again."""

    def fail(connection: Connection) -> None:
        assert connection.scalar(text("SELECT to_regclass('precious') IS NULL"))
        raise KeyboardInterrupt

    execute(configured, "CREATE TABLE precious AS SELECT 42 AS answer")
    monkeypatch.setattr(migrations, "upgrade", fail)

    with pytest.raises(KeyboardInterrupt):
        reset_db(configured)

    assert ask(configured, "SELECT answer FROM precious") == 42
    with configured.connect() as connection:
        assert schema_state(connection).is_at_head
        assert environment_marker.read(connection) == "development"


def wait_for(engine: Engine, query: str, expected: object) -> None:
    deadline = time.monotonic() + 20
    while ask(engine, query) != expected:
        assert time.monotonic() < deadline, query
        time.sleep(0.02)


def test_lock_that_is_not_free_in_time_is_reported_with_its_holder(configured: Engine) -> None:
    with configured.begin() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(hashtext('procore_integrator schema'))"))

        with (
            pytest.raises(UserError, match=r"\n  pid \d+ of .* idle in a transaction for ") as caught,
            database_errors_reported(configured),
        ):
            reset_db(configured, lock_timeout=0.05)

    assert isinstance(caught.value.__cause__, OperationalError)
    assert isinstance(caught.value.__cause__.orig, LockNotAvailable)
    assert is_whole(configured)


def test_holder_of_another_role_is_named_without_its_statement(near: Engine) -> None:
    execute(
        near,
        "CREATE ROLE ordinary LOGIN PASSWORD 'ordinary'",
        f"ALTER DATABASE {near.url.database} OWNER TO ordinary",
    )
    ours = connect(near.url.set(username="ordinary", password="ordinary"))
    init_db(ours)
    with near.begin() as holder:
        holder.execute(text("LOCK TABLE companies"))
        with (
            pytest.raises(UserError, match=r"\n  pid \d+ of \w+ \(.+\): <insufficient privilege>\n"),
            database_errors_reported(ours),
        ):
            reset_db(ours, lock_timeout=0.05)
    ours.dispose()


def test_script_lists_what_it_dropped(configured: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    execute(configured, "CREATE TABLE old_jobs (id int)")

    reset_by_script(configured)

    said = capsys.readouterr().out
    assert "dropped table public.old_jobs" in said
    assert f"reset: dropped {len(TABLES) + 2} objects and re-created the schema." in said
    assert is_whole(configured)


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        reset_script.main(list(arguments))
    return str(caught.value)


def test_production_is_refused_even_when_the_name_is_typed(
    configured: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("API_TOKEN", TOKEN)

    assert "production database is never reset" in refused("--yes-drop", str(configured.url.database))
    assert is_whole(configured)


def test_database_marked_as_production_is_refused_regardless_of_the_settings(
    configured: Engine,
) -> None:
    """The DATABASE_URL of a laptop may lead to the production database, even through a tunnel on loopback."""
    init_db(configured, environment="production")

    for arguments in ([], ["--yes-drop", str(configured.url.database)]):
        said = refused(*arguments)
        assert "it is marked as production, regardless of APP_ENV." in said
    assert is_whole(configured)


def test_mark_survives_a_reset_unless_it_names_another_environment(configured: Engine) -> None:
    def mark() -> str | None:
        with configured.connect() as connection:
            return environment_marker.read(connection)

    assert mark() == "development"
    reset_db(configured)
    assert mark() == "development"
    reset_db(configured, environment="test")
    assert mark() == "test"


def test_only_production_marks_a_database_that_it_did_not_create(empty_engine: Engine) -> None:
    """A development start must not mark a database that it did not create."""
    init_db(empty_engine)

    def mark_after(environment: str) -> str | None:
        init_db(empty_engine, environment=environment)
        with empty_engine.connect() as connection:
            return environment_marker.read(connection)

    assert mark_after("development") is None
    with empty_engine.begin() as connection:
        migrations.downgrade(connection, "87abf947398d")
    assert mark_after("development") is None, "nor one that it migrated"
    assert mark_after("production") == "production"
    assert mark_after("development") == "production"


def test_a_start_does_not_mark_a_database_that_holds_other_tables(empty_engine: Engine) -> None:
    execute(empty_engine, "CREATE TABLE somebodys (id int)")

    init_db(empty_engine, environment="development")

    with empty_engine.connect() as connection:
        assert environment_marker.read(connection) is None


def test_start_continues_if_the_role_may_not_write_the_mark(empty_engine: Engine) -> None:
    init_db(empty_engine)
    execute(
        empty_engine, f'ALTER DATABASE "{empty_engine.url.database}" SET default_transaction_read_only = on'
    )
    empty_engine.dispose()

    assert init_db(empty_engine, environment="production").is_at_head


def test_local_database_marked_as_development_is_reset_without_confirmation(near: Engine) -> None:
    init_script.main([])
    execute(near, "CREATE TABLE old_jobs (id int)")

    reset_script.main([])

    assert is_whole(near)


def test_database_without_a_mark_needs_its_name_typed_once(near: Engine) -> None:
    execute(near, "CREATE TABLE somebodys (id int)")

    said = refused()

    assert "It is not marked as a development or test database, so it may belong to somebody else." in said
    assert f"To drop table public.somebodys: `nox -s db_reset -- --yes-drop {near.url.database}`." in said
    assert ask(near, "SELECT count(*) FROM somebodys") == 0
    reset_by_script(near)
    reset_script.main([])
    assert is_whole(near)


def test_wrong_name_is_refused_with_a_list_of_what_would_be_dropped(configured: Engine) -> None:
    said = refused("--yes-drop", "other")

    assert f"The name given is 'other', but the database is {configured.url.database!r}." in said
    assert "table public.companies" in said
    assert is_whole(configured)


@pytest.mark.parametrize("typed", [None, b"something\n", b"\x04", b"\xff\n"], ids=str)
def test_name_is_asked_at_a_terminal(
    typed: bytes | None,
    empty_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    execute(empty_engine, "CREATE TABLE somebodys (id int)")
    monkeypatch.setenv("DATABASE_URL", empty_engine.url.render_as_string(hide_password=False))
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed or f"{empty_engine.url.database}\n".encode())
        with os.fdopen(theirs, encoding="utf-8") as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            with (
                nullcontext() if typed is None else pytest.raises(UserError, match="Nothing was changed in ")
            ):
                reset_script.main([])
    finally:
        os.close(ours)

    assert ", this would drop table public.somebodys.\n" in capsys.readouterr().out
    assert ask(empty_engine, "SELECT to_regclass('somebodys') IS NULL") is (typed is None)


def test_nobody_is_asked_if_standard_input_is_closed(near: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(near, "CREATE TABLE somebodys (id int)")
    monkeypatch.setattr(sys, "stdin", None)  # Python's value for a closed standard input

    assert refused().startswith("Nothing was changed in ")


@pytest.mark.parametrize(
    ("host", "address", "local"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("127.0.0.2", "127.0.0.2", True),
        ("/run/postgresql", "", True),
        ("@abstract", "", True),
        ("db", "172.18.0.2", True),
        ("localhost", "10.0.0.1", False),  # PGHOSTADDR leads there
        ("db.example.com", "10.0.0.1", False),
        ("127.0.0.1.example.com", "192.0.2.1", False),
        ("somewhere", "", False),
    ],
)
def test_only_loopback_sockets_and_composes_db_are_local(host: str, address: str, *, local: bool) -> None:
    assert safety.is_local(host, address) is local
