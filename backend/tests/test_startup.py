"""What a start says of a database that is not there, will not have us, or is newer than the code."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import OperationalError

from backend.config import Settings, load_settings
from backend.database import connect, init_db
from backend.errors import UserError
from backend.main import create_app
from backend.startup import explain_refusal, start_database, wait_for_database

SECRET = "do-not-print-this"


def settings_for(url: str, **values: object) -> Settings:
    return load_settings(_env_file=None, database_url=url, database_wait_seconds=0.2, **values)


@pytest.fixture
def newer(empty_url: str) -> Iterator[Engine]:
    engine = connect(empty_url)
    init_db(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
    yield engine
    engine.dispose()


def test_server_that_came_up_after_the_attempt_is_asked_again(postgres_url: str, unused_port: int) -> None:
    url = make_url(postgres_url)
    with pytest.raises(OperationalError) as caught:
        connect(url.set(host="127.0.0.1", port=unused_port)).connect()

    assert explain_refusal(caught.value, url) is None
    assert "There is no database 'absent'" in str(explain_refusal(caught.value, url.set(database="absent")))


def test_absent_database_is_waited_for_and_then_named(unused_port: int) -> None:
    engine = connect(f"postgresql+psycopg://u:{SECRET}@127.0.0.1:{unused_port}/absent")

    with pytest.raises(UserError) as caught:
        wait_for_database(engine, 0.2)

    assert str(caught.value) == (
        f"The database at 127.0.0.1:{unused_port}/absent was not to be had for 0.2 s: Connection refused.\n"
        "Start it (`docker compose up -d db`), set DATABASE_URL to where it is, or have one found by "
        "`nox -s dev` and `nox -s db_init`."
    )


def test_missing_database_is_not_waited_for(postgres_url: str) -> None:
    engine = connect(make_url(postgres_url).set(database="not there"))

    with pytest.raises(
        UserError,
        match=r"There is no database 'not there' at .*\nCreate it \(`createdb -h \S+ -p \d+ -U \w+ 'not there'`\)",
    ):
        wait_for_database(engine, 60)


def test_refused_password_is_not_waited_for_and_never_shown(postgres_url: str) -> None:
    engine = connect(make_url(postgres_url).set(password=SECRET))

    with pytest.raises(UserError) as caught:
        wait_for_database(engine, 60)

    assert f"refuses user {engine.url.username!r}: FATAL: " in str(caught.value)
    assert "DATABASE_URL or POSTGRES_PASSWORD" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_newer_schema_stops_a_start_in_development(newer: Engine) -> None:
    settings = settings_for(newer.url.render_as_string(hide_password=False))

    with pytest.raises(UserError) as caught:
        start_database(newer, settings)

    assert "is at revision from_the_future, which this code does not know" in str(caught.value)
    assert "`nox -s db_reset`" in str(caught.value)


def test_newer_schema_is_served_in_production_so_that_a_rollback_keeps_the_service(newer: Engine) -> None:
    url = newer.url.render_as_string(hide_password=False)
    settings = settings_for(url, app_env="production", api_token="x" * 32)
    told: list[str] = []

    state = start_database(newer, settings, tell=told.append)

    assert state.is_ahead
    assert ["Going on" in line for line in told] == [True]


def test_database_that_is_read_only_is_told_in_a_line(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        connection.execute(
            text(f'ALTER DATABASE "{empty_engine.url.database}" SET default_transaction_read_only = on')
        )
    empty_engine.dispose()

    with pytest.raises(UserError, match="refused: cannot execute CREATE TABLE in a read-only transaction"):
        start_database(empty_engine, settings_for(empty_engine.url.render_as_string(hide_password=False)))


def test_several_revisions_are_named_and_never_served(newer: Engine) -> None:
    with newer.begin() as connection:
        connection.execute(text("INSERT INTO alembic_version VALUES ('another')"))

    with pytest.raises(UserError, match="is at revision another, from_the_future"):
        start_database(newer, settings_for(newer.url.render_as_string(hide_password=False)))


def test_parameters_of_the_url_win_over_our_own(postgres_url: str) -> None:
    engine = connect(f"{postgres_url}?application_name=mine")

    with engine.connect() as connection:
        assert connection.scalar(text("SHOW application_name")) == "mine"
    engine.dispose()


def test_failed_start_is_raised_to_whoever_runs_the_lifespan(unused_port: int) -> None:
    settings = settings_for(f"postgresql://u:{SECRET}@127.0.0.1:{unused_port}/absent")

    with pytest.raises(RuntimeError, match="was not to be had"), TestClient(create_app(settings)):
        pass
