"""`init_db` creates the schema once, however many processes call it at the same time."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError

from backend import migrations
from backend.database import init_db
from backend.models.models import Base

TABLES = {*Base.metadata.tables, "alembic_version"}


def tables(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")))


def test_init_builds_the_schema_and_does_nothing_the_second_time(empty_engine: Engine) -> None:
    first, second = init_db(empty_engine), init_db(empty_engine)

    assert (first.current, second.current) == (None, migrations.head())
    assert tables(empty_engine) == TABLES


def test_inits_at_the_same_moment_succeed_if_the_database_defaults_to_repeatable_read(
    empty_engine: Engine,
) -> None:
    with empty_engine.begin() as connection:
        name = empty_engine.url.database
        connection.execute(
            text(f'ALTER DATABASE "{name}" SET default_transaction_isolation = "repeatable read"')
        )
    empty_engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda _: init_db(empty_engine), range(4)))

    assert sorted(state.current is None for state in states) == [False] * 3 + [True]


def test_statements_in_errors_do_not_show_what_users_wrote(empty_engine: Engine) -> None:
    with empty_engine.connect() as connection, pytest.raises(DataError) as caught:
        connection.execute(text("SELECT 1 / 0 WHERE :secret <> ''"), {"secret": "what a user wrote"})

    assert "what a user wrote" not in str(caught.value)
