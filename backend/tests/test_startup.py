"""The messages of a start if the database is missing, refuses the connection, or is newer than the code."""

import socket
import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from backend.config import Settings, load_settings
from backend.database import connect, init_db
from backend.database_url import parse_url
from backend.errors import UserError
from backend.main import create_app
from backend.routers import health
from backend.startup import createdb_command, explain_refusal, start_database, wait_for_database
from freshpg import Server, start_ephemeral

SECRET = "do-not-print-this"


def settings_for(url: str, **values: object) -> Settings:
    return load_settings(_env_file=None, database_url=url, database_wait_seconds=0.2, **values)


def refusal(url: str, seconds: float = 60) -> str:
    """Wait for a database that never answers, and return the message."""
    engine = connect(url)
    with pytest.raises(UserError) as caught:
        wait_for_database(engine, seconds)
    engine.dispose()
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server without SSL whose settings and roles the tests may change."""
    with start_ephemeral() as server:
        yield server


@pytest.fixture
def newer(empty_engine: Engine) -> Engine:
    init_db(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
    return empty_engine


def test_server_that_came_up_after_the_attempt_is_asked_again(postgres_url: str, unused_port: int) -> None:
    url = connect(postgres_url).url
    with pytest.raises(OperationalError) as caught:
        connect(url.set(host="127.0.0.1", port=unused_port)).connect()

    assert explain_refusal(caught.value, url) is None
    absent = url.set(database="absent")
    assert "Database 'absent' does not exist" in str(explain_refusal(caught.value, absent))


def test_absent_server_is_waited_for_and_then_named(unused_port: int) -> None:
    assert refusal(f"postgresql://u:{SECRET}@127.0.0.1:{unused_port}/absent?sslmode=require", 0.2) == (
        f"Could not connect to 127.0.0.1:{unused_port}/absent within 0.2 s: Connection refused.\n"
        "Start the database (`docker compose up -d db`), or correct DATABASE_URL or POSTGRES_HOST; if neither is set, "
        "`nox -s dev` finds or starts a database."
    )


def test_missing_database_is_reported_at_once(postgres_url: str) -> None:
    url = make_url(postgres_url).set(database="not there")
    said = refusal(url.render_as_string(hide_password=False))

    assert said.startswith("Database 'not there' does not exist at ")
    assert "`createdb -h " in said
    assert "'not there'`" in said


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("postgresql://u@h:1/my d", "createdb -h h -p 1 -U u 'my d'"),
        ("postgresql:///d?host=/run", "createdb -h /run d"),
        ("postgresql://u@db/d", "docker compose exec db createdb -U u d"),
    ],
)
def test_command_that_creates_the_database_uses_the_urls_own_server(url: str, command: str) -> None:
    assert createdb_command(parse_url(url)) == command


def test_wrong_password_is_reported_at_once_and_never_shown(own_server: Server) -> None:
    url = make_url(own_server.url).set(password=SECRET)
    said = refusal(url.render_as_string(hide_password=False))

    assert f"refused user {url.username!r}: FATAL: " in said
    assert "DATABASE_URL or POSTGRES_PASSWORD" in said


@pytest.mark.parametrize(
    ("parameters", "variables", "reason"),
    [
        ("?sslmode=require", {}, "server does not support SSL, but SSL was required"),
        ("", {"PGSSLMODE": "verify-full"}, "server does not support SSL, but SSL was required"),
        ("", {"PGSERVICE": "nosuch"}, 'definition of service "nosuch" not found'),
        ("", {"PGREQUIREAUTH": "none"}, 'authentication method requirement "none" failed'),
        ("", {"PGCHANNELBINDING": "require"}, "channel binding required"),
        ("", {"PGTARGETSESSIONATTRS": "standby"}, "server is not in hot standby mode"),
        ("", {"PGTARGETSESSIONATTRS": "nonsense"}, "invalid target_session_attrs value"),
        ("", {"PGOPTIONS": "-c nonsense=1"}, 'unrecognized configuration parameter "nonsense"'),
        ("?gssencmode=nonsense", {}, "invalid gssencmode value"),
    ],
)
def test_error_that_waiting_cannot_fix_is_reported_at_once(
    parameters: str,
    variables: dict[str, str],
    reason: str,
    own_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    said = refusal(f"{own_server.url}{parameters}")

    assert reason in said
    assert said.count("\n") == 1
    assert all(f"libpq also reads {name} from the environment." in said for name in variables)


def test_server_without_a_free_connection_is_waited_for(own_server: Server) -> None:
    administrator = connect(own_server.url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text("CREATE ROLE crowded LOGIN PASSWORD 'p' CONNECTION LIMIT 1"))
    url = administrator.url.set(username="crowded", password="p")
    late = connect(url)
    occupied = connect(url, poolclass=NullPool).connect()
    threading.Timer(0.3, occupied.close).start()

    wait_for_database(late, 30)

    late.dispose()
    administrator.dispose()


def test_newer_schema_stops_a_start_in_development(newer: Engine) -> None:
    settings = settings_for(newer.url.render_as_string(hide_password=False))

    with pytest.raises(UserError) as caught:
        start_database(newer, settings)

    assert "is at revision from_the_future, which this code does not know" in str(caught.value)
    assert "`nox -s db_reset`" in str(caught.value)


def test_newer_schema_is_served_in_production_so_that_a_rollback_keeps_the_service(newer: Engine) -> None:
    url = newer.url.render_as_string(hide_password=False)
    settings = settings_for(url, app_env="production", api_token="x" * 32)
    reported: list[str] = []

    state = start_database(newer, settings, report=reported.append)

    assert state.is_ahead
    assert ["Continuing with the newer schema." in line for line in reported] == [True]


def test_read_only_database_is_reported_in_a_line(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        connection.execute(
            text(f'ALTER DATABASE "{empty_engine.url.database}" SET default_transaction_read_only = on')
        )
    empty_engine.dispose()

    with pytest.raises(
        UserError, match="reported an error: cannot execute CREATE TABLE in a read-only transaction"
    ):
        start_database(empty_engine, settings_for(empty_engine.url.render_as_string(hide_password=False)))


def test_several_revisions_are_named_and_not_served_in_development(newer: Engine) -> None:
    with newer.begin() as connection:
        connection.execute(text("INSERT INTO alembic_version VALUES ('another')"))

    with pytest.raises(UserError, match="is at revision another, from_the_future"):
        start_database(newer, settings_for(newer.url.render_as_string(hide_password=False)))


@pytest.mark.parametrize("given", ["URL", "PGAPPNAME"])
def test_configured_application_name_wins_over_the_default(
    given: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given == "PGAPPNAME":
        monkeypatch.setenv("PGAPPNAME", "mine")
    engine = connect(postgres_url + ("?application_name=mine" if given == "URL" else ""))

    with engine.connect() as connection:
        assert connection.scalar(text("SHOW application_name")) == "mine"
    engine.dispose()


def test_failed_start_is_raised_when_a_test_runs_the_lifespan(unused_port: int) -> None:
    settings = settings_for(f"postgresql://u:{SECRET}@127.0.0.1:{unused_port}/absent")

    with pytest.raises(UserError, match="Could not connect to "), TestClient(create_app(settings)):
        pass


def test_health_check_does_not_wait_for_a_frozen_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen server accepts connections but sends nothing; the check answers 503 while the attempt still hangs."""
    monkeypatch.setattr(health, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        url = f"postgresql+psycopg://u:p@127.0.0.1:{silent.getsockname()[1]}/d?connect_timeout=60"
        engine = connect(url)
        client = TestClient(
            create_app(load_settings(_env_file=None, app_env="test", database_url=url), engine=engine)
        )

        response = client.get("/health/ready")

        assert (response.status_code, response.json()["detail"]) == (503, "The database does not answer.")
        attempt, _ = silent.accept()
        with attempt:
            attempt.settimeout(10)
            assert attempt.recv(1024), "libpq's first message"
            attempt.settimeout(0)
            with pytest.raises(BlockingIOError):  # if it were closed, recv() would return nothing
                attempt.recv(1024)
