"""The tier `session`: commits that are savepoints behave as commits do, and the guard speaks where they cannot."""

import threading
from typing import Any, Literal

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from freshpg.guard import Kind, TierTooWeak, kind_of


@pytest.fixture
def things(postgres_engine: Engine) -> Engine:
    """Give the engine with a table that is rolled back with everything else."""
    with postgres_engine.begin() as connection:
        connection.execute(
            text(
                "create table things (id int generated always as identity primary key, name text unique,"
                " parent int references things deferrable initially deferred)"
            )
        )
    return postgres_engine


def add(connection: Connection | Session, name: str, parent: int | None = None) -> None:
    connection.execute(
        text("insert into things (name, parent) values (:name, :parent)"), {"name": name, "parent": parent}
    )


def names(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("select name from things order by name")))


def test_what_is_committed_is_seen_by_the_next_connection(things: Engine) -> None:
    with things.begin() as connection:
        add(connection, "a")

    assert names(things) == ["a"]


def test_rollback_undoes_what_came_after_the_last_commit_alone(things: Engine) -> None:
    with things.connect() as connection:
        add(connection, "a")
        connection.commit()
        add(connection, "b")
        connection.rollback()
        add(connection, "c")
        connection.commit()

    assert names(things) == ["a", "c"]


def test_connection_returned_without_a_commit_is_rolled_back(things: Engine) -> None:
    with things.connect() as connection:
        add(connection, "a")

    assert names(things) == []


@pytest.mark.parametrize("number", range(2))
def test_nothing_of_another_test_is_there(things: Engine, number: int) -> None:
    """The table itself is created anew by the second, which would fail if it were still there."""
    assert names(things) == []
    with things.begin() as connection:
        add(connection, "left behind")


def test_nested_transactions_roll_back_and_release_by_themselves(things: Engine) -> None:
    with Session(things) as session:
        add(session, "outer")
        with session.begin_nested():
            add(session, "kept")
        nested = session.begin_nested()
        add(session, "undone")
        nested.rollback()
        session.commit()

    assert names(things) == ["kept", "outer"]


def test_failed_statement_fails_the_transaction_until_its_rollback(things: Engine) -> None:
    with things.connect() as connection:
        add(connection, "a")
        connection.commit()
        add(connection, "b")
        with pytest.raises(IntegrityError):
            add(connection, "a")
        with pytest.raises(Exception, match="current transaction is aborted"):
            add(connection, "c")
        connection.rollback()
        add(connection, "d")
        connection.commit()

    assert names(things) == ["a", "d"]


def test_commit_of_a_failed_transaction_rolls_it_back(things: Engine) -> None:
    pooled = things.raw_connection()
    driver: Any = pooled.driver_connection
    driver.execute("insert into things (name) values ('a')")
    with pytest.raises(psycopg.errors.UndefinedTable):
        driver.execute("select * from nothing")
    driver.commit()
    driver.execute("insert into things (name) values ('b')")
    driver.commit()
    pooled.close()

    assert names(things) == ["b"]


def test_failed_transaction_of_one_connection_is_not_anothers(things: Engine) -> None:
    with things.connect() as first:
        with pytest.raises(ProgrammingError):
            first.execute(text("select * from nothing"))

        assert names(things) == []

        with pytest.raises(Exception, match="current transaction is aborted"):
            first.execute(text("select 1"))


def test_deferred_constraint_fails_the_commit_and_not_before(things: Engine) -> None:
    with things.connect() as connection:
        add(connection, "a", parent=999)
        with pytest.raises(IntegrityError) as refused:
            connection.commit()
        assert isinstance(refused.value.orig, psycopg.errors.ForeignKeyViolation)
        connection.rollback()

    assert names(things) == []


def test_driver_transaction_blocks_commit(things: Engine) -> None:
    pooled = things.raw_connection()
    driver: Any = pooled.driver_connection
    with driver.transaction():
        driver.execute("insert into things (name) values ('a')")
    with driver.transaction(force_rollback=True):
        driver.execute("insert into things (name) values ('b')")
    driver.rollback()
    pooled.close()

    assert names(things) == ["a"]


def test_second_connection_that_reads_is_welcome(things: Engine) -> None:
    with things.connect() as first:
        first.execute(text("select * from things"))
        with things.begin() as second:
            add(second, "a")
        assert list(first.scalars(text("select name from things"))) == ["a"]
        first.rollback()

    assert names(things) == ["a"]


def test_second_connection_beside_uncommitted_writes_is_refused(things: Engine) -> None:
    with things.connect() as first:
        add(first, "a")
        with pytest.raises(TierTooWeak, match=r'postgres\("committing"\)'), things.connect() as second:
            second.execute(text("select * from things"))
        first.rollback()


def test_second_connection_beside_a_write_of_nothing_is_welcome(things: Engine) -> None:
    with things.connect() as first:
        first.execute(text("delete from things"))
        with things.connect() as second:
            assert second.scalar(text("select count(*) from things")) == 0


def test_threads_that_take_turns_share_the_connection(things: Engine) -> None:
    def write(name: str) -> None:
        with things.begin() as connection:
            add(connection, name)

    for name in ("a", "b"):
        thread = threading.Thread(target=write, args=[name])
        thread.start()
        thread.join()

    assert names(things) == ["a", "b"]


def test_connection_past_the_engine_is_refused_once_the_test_wrote(things: Engine) -> None:
    with things.begin() as connection:
        add(connection, "a")
    url = things.url.render_as_string(hide_password=False).replace("+psycopg", "")

    with pytest.raises(TierTooWeak, match="sees nothing of what it wrote"):
        psycopg.connect(url)


def test_connection_past_the_engine_is_welcome_before_and_what_it_commits_is_gone(
    postgres_engine: Engine, postgres_database: str
) -> None:
    with psycopg.connect(postgres_database.replace("+psycopg", "")) as other:
        assert other.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE", "REPEATABLE READ"])
def test_isolation_levels_are_refused_and_the_connection_stays_good(
    postgres_engine: Engine, level: Literal["AUTOCOMMIT", "SERIALIZABLE", "REPEATABLE READ"]
) -> None:
    with postgres_engine.connect() as connection, pytest.raises(TierTooWeak):
        connection.execution_options(isolation_level=level)
    with postgres_engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1


def test_read_committed_is_what_there_is(postgres_engine: Engine) -> None:
    with postgres_engine.connect() as connection:
        connection.execution_options(isolation_level="READ COMMITTED")
        assert connection.scalar(text("show transaction_isolation")) == "read committed"


@pytest.mark.parametrize(
    "statement",
    [
        "commit",
        "select 1; COMMIT",
        "/* why */ begin",
        "rollback",
        "prepare transaction 'x'",
        "listen news",
        "notify news",
        "select pg_notify('news', '')",
        "select pg_advisory_lock(1)",
        "select pg_try_advisory_lock(1)",
        "set transaction isolation level serializable",
    ],
)
def test_statements_that_a_savepoint_cannot_hold_are_refused(postgres_engine: Engine, statement: str) -> None:
    with postgres_engine.connect() as connection, pytest.raises(TierTooWeak, match="committing"):
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        (" ; ", Kind.NOTHING),
        ("-- nothing\n;", Kind.NOTHING),
        ("select 'commit; begin'", Kind.READ),
        ("select pg_advisory_xact_lock(1)", Kind.READ),
        ("rollback to savepoint x", Kind.READ),
        ("select 1 from t for update", Kind.READ),
        ("with x as (insert into t values (1) returning 1) select * from x", Kind.WRITE),
        ("with x as (select 1) select * from x", Kind.READ),
        ("do $$ begin perform 1; end $$", Kind.WRITE),
        ("create function f() returns int language sql begin atomic; select 1; end", Kind.WRITE),
        ("savepoint x", Kind.SAVEPOINT),
        ("release savepoint x", Kind.RELEASE),
    ],
)
def test_statements_are_known_by_their_text(statement: str, kind: Kind) -> None:
    assert kind_of(statement) is kind


def test_two_phase_transactions_are_refused(postgres_engine: Engine) -> None:
    with postgres_engine.connect() as connection, pytest.raises(TierTooWeak, match="two-phase"):
        connection.begin_twophase()


def test_engine_that_is_disposed_of_loses_nothing(things: Engine) -> None:
    with things.begin() as connection:
        add(connection, "a")
    things.dispose()

    assert names(things) == ["a"]


def test_lost_connection_is_told_for_what_it_is(things: Engine) -> None:
    with things.connect() as connection:
        driver: Any = connection.connection.driver_connection
        with pytest.raises(Exception, match=r"terminating connection|server closed|closed unexpectedly"):
            driver.execute("select pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(TierTooWeak, match="lost"):
        names(things)


def test_statement_of_a_wrong_shape_fails_as_without_the_tier(postgres_engine: Engine) -> None:
    with postgres_engine.connect() as connection, pytest.raises(ProgrammingError):
        connection.execute(text("select from from"))
