"""The schema comes to be in one way, many processes at once or not, and a reset drops whatever is there."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError, OperationalError

from backend import migrations
from backend.database import init_db, reset_db, schema_state
from backend.models.models import Base

TABLES = {*Base.metadata.tables, "alembic_version"}


def tables(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")))


def test_init_builds_the_schema_and_does_nothing_the_second_time(empty: Engine) -> None:
    first, second = init_db(empty), init_db(empty)

    assert (first.current, second.current) == (None, migrations.head())
    assert tables(empty) == TABLES


def test_many_inits_at_the_same_moment_all_succeed_and_one_does_the_work(empty: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: init_db(empty), range(8)))

    assert sorted(state.current is None for state in states) == [False] * 7 + [True]


def test_inits_at_the_same_moment_succeed_where_the_database_defaults_to_repeatable_read(
    empty: Engine,
) -> None:
    with empty.begin() as connection:
        name = empty.url.database
        connection.execute(
            text(f'ALTER DATABASE "{name}" SET default_transaction_isolation = "repeatable read"')
        )
    empty.dispose()

    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda _: init_db(empty), range(4)))

    assert sorted(state.current is None for state in states) == [False] * 3 + [True]


def test_schema_of_an_unknown_revision_is_ahead_and_left_alone(empty: Engine) -> None:
    init_db(empty)
    with empty.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))

    state = init_db(empty)

    assert (state.current, state.is_ahead, state.is_usable) == ("from_the_future", True, True)


def test_reset_drops_everything_whatever_it_is_and_called(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.exec_driver_sql("""
            CREATE SCHEMA "other schema";
            CREATE TABLE "other schema"."a;b" (id serial);
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
        """, execution_options={"no_parameters": True})  # fmt: skip

    dropped = reset_db(empty)

    assert {'table "other schema"."a;b"', 'table public."we""ird %s :name"', "view public.v"} <= set(dropped)
    assert tables(empty) == TABLES
    with empty.connect() as connection:
        assert migrations.compare(connection) == []
    left = reset_db(empty)
    assert {thing.split()[0] for thing in left} == {"table", "routine"}, (
        "the tables and the trigger's function"
    )
    assert len(left) == len(TABLES) + 1


def test_reset_that_cannot_have_a_lock_leaves_everything_as_it_was(empty: Engine) -> None:
    init_db(empty)
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE precious AS SELECT 42 AS answer"))
    with empty.begin() as holder:
        holder.execute(text("LOCK TABLE precious IN ACCESS SHARE MODE"))

        with pytest.raises(OperationalError) as caught:
            reset_db(empty, lock_timeout=0.05)

    assert getattr(caught.value.orig, "sqlstate", None) == "55P03"
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT answer FROM precious")) == 42
        assert schema_state(connection).is_at_head


def test_statements_in_errors_do_not_show_what_users_wrote(empty: Engine) -> None:
    with empty.connect() as connection, pytest.raises(DataError) as caught:
        connection.execute(text("SELECT 1 / 0 WHERE :secret <> ''"), {"secret": "what a user wrote"})

    assert "what a user wrote" not in str(caught.value)
