"""What the doctor finds in the database, and which server it says the tests will take."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, make_url, text

from backend import migrations
from backend.config import ROOT, load_settings
from backend.database import connect
from devtools.doctor import check_database
from devtools.doctor.check_database import check_engine
from devtools.doctor.docker_cli import Docker, Machine
from devtools.doctor.finding import Finding, State

SECRET = "do-not-print-this"


def look(engine: Engine) -> dict[str, Finding]:
    return {each.name: each for each in check_engine(engine, "as configured", load_settings())}


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_database_at_head_is_well_and_stays_as_it_was(engine: Engine) -> None:
    found = look(engine)

    assert {each.state for each in found.values()} == {State.OK}, found
    assert list(found) == ["server", "schema", "drift", "utc", "clock", "collation"]
    assert found["server"].finding.endswith(f"/{engine.url.database}, as configured.")
    with engine.connect() as connection:
        assert migrations.current(connection) == migrations.head()


def test_database_without_schema_is_a_warning(empty_engine: Engine) -> None:
    found = look(empty_engine)

    assert (found["schema"].state, found["schema"].cure) == (State.WARNING, "`nox -s db_init`.")
    assert found["drift"].state is State.UNKNOWN


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        ("unheard_of", "is at revision unheard_of, which this code does not know."),
        (None, "1 migration(s) behind"),
    ],
)
def test_schema_that_is_not_at_head_is_wrong(revision: str | None, says: str, engine: Engine) -> None:
    with engine.begin() as connection:
        if revision is None:
            migrations.downgrade(connection, "-1")
        else:
            connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})

    found = look(engine)["schema"]
    assert found.state is State.WRONG
    assert says in found.finding


def test_drift_is_wrong_and_names_the_first_three(engine: Engine) -> None:
    change(engine, *(f"CREATE TABLE extra_{number} (a int)" for number in range(5)))

    found = look(engine)["drift"]
    assert found.state is State.WRONG
    assert "table `extra_0`" in found.finding
    assert found.finding.endswith(" and 2 more.")


def test_sessions_that_start_outside_utc_are_a_warning_whose_cure_works(engine: Engine) -> None:
    change(engine, f"ALTER DATABASE \"{engine.url.database}\" SET timezone = 'Asia/Tokyo'")

    found = look(engine)["utc"]
    assert found.state is State.WARNING
    assert "start in Asia/Tokyo, by database" in found.finding
    change(engine, found.cure.partition(": ")[2])
    assert look(engine)["utc"].state is State.OK


def test_column_that_keeps_no_instants_is_wrong(engine: Engine) -> None:
    change(engine, "ALTER TABLE users ADD COLUMN seen timestamp")

    assert look(engine)["utc"].state is State.WRONG


@pytest.mark.parametrize(("seconds", "side"), [(-90, "ahead of"), (7200, "behind")])
def test_clock_that_differs_is_a_warning(
    seconds: int, side: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    with engine.connect() as connection:
        monkeypatch.setattr(time, "time", lambda: now() + seconds)
        (found,) = check_database.check_clock(connection)

    assert found.state is State.WARNING
    assert f"is {abs(seconds)} s {side} this machine's." in found.finding


def test_collation_of_another_version_is_a_warning_whose_cure_works(engine: Engine) -> None:
    """As after a change of image: what the database recorded is not what the server's library has."""
    with engine.connect() as connection:
        actual = connection.scalar(
            text("SELECT pg_database_collation_actual_version(oid) FROM pg_database LIMIT 1")
        )
    if actual is None:
        pytest.fail("the server's databases have no collation version to differ from")
    recorded = text("UPDATE pg_database SET datcollversion = '0.1' WHERE datname = current_database()")
    with engine.begin() as connection:
        connection.execute(recorded)

    found = look(engine)["collation"]
    assert found.state is State.WARNING
    assert f"{engine.url.database}: collation version 0.1, the server's is {actual}." in found.finding
    assert found.cure.startswith("`nox -s db_shell -- -c 'REINDEX DATABASE ")
    with psycopg.connect(
        engine.url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
    ) as session:
        for statement in found.cure.split("'")[1::2]:
            session.execute(statement.encode())
    assert look(engine)["collation"].state is State.OK


def test_lock_that_another_connection_holds_is_unknown_within_seconds(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE alembic_version"))
        found = look(engine)["schema"]

    assert found.state is State.UNKNOWN
    assert "lock timeout" in found.finding


@pytest.fixture
def refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Give an engine on a database that does not exist, of a server that Compose could have started."""
    missing = connect(engine.url.set(database="no such"))
    yield missing
    missing.dispose()


def test_missing_database_is_wrong_with_the_command_that_creates_it_from_the_host(
    refused: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POSTGRES_DB was changed after the volume was created, so Compose's database is there under another name."""
    for name, value in (
        ("USER", refused.url.username),
        ("PASSWORD", refused.url.password),
        ("DB", "no such"),
    ):
        monkeypatch.setenv(f"POSTGRES_{name}", str(value))
    monkeypatch.setenv("DB_PORT", str(refused.url.port))
    compose = {each.name: each for each in check_database.check(Machine(ROOT, Docker()))}["server"]
    monkeypatch.setenv("POSTGRES_HOST", str(refused.url.host))
    configured = look(refused)["server"]

    user, host, port = refused.url.username, refused.url.host, refused.url.port
    assert compose.state is configured.state is State.WRONG
    assert compose.finding.startswith("There is no database 'no such' at 127.0.0.1:")
    assert compose.cure == f"Create it: `docker compose exec db createdb -U {user} 'no such'`."
    assert configured.cure == f"Create it: `createdb -h {host} -p {port} -U {user} 'no such'`."


def test_wrong_password_is_reported_with_how_to_change_the_volumes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PORT", str(engine.url.port))
    monkeypatch.setenv("POSTGRES_USER", str(engine.url.username))
    monkeypatch.setenv("POSTGRES_PASSWORD", SECRET)

    (found,) = check_database.check(Machine(ROOT, Docker()))

    assert found.state is State.WRONG
    assert f"refuses user '{engine.url.username}' and its password." in found.finding
    assert f"`docker compose exec db psql -U {engine.url.username} -d postgres -c '\\password'`" in found.cure
    assert SECRET not in found.finding + found.cure


def test_server_that_is_not_there_is_wrong_if_it_is_configured(
    unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:{SECRET}@127.0.0.1:{unused_port}/x")

    (found,) = check_database.check(Machine(ROOT, Docker()))

    assert found.state is State.WRONG
    assert found.finding.startswith(f"Could not connect to 127.0.0.1:{unused_port}/x: ")
    assert SECRET not in found.finding


def server_for_tests(tmp_path: Path, **variables: str) -> dict[str, str]:
    """Return what is found of the server for tests, by a process of its own: testcontainers reads its file once."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TEST_DATABASE", "DOCKER"))
    }
    said = subprocess.run(
        [sys.executable, "-B", "-m", "devtools.doctor", "--json", "--only", "tests"],
        cwd=ROOT, env=kept | {"HOME": str(tmp_path)} | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (found,) = json.loads(said.stdout)
    assert said.stderr == ""
    return dict(found)


def test_stale_engine_in_the_properties_of_testcontainers_is_a_warning_that_names_the_file(
    tmp_path: Path,
) -> None:
    properties = tmp_path / ".testcontainers.properties"
    properties.write_text("tc.host=tcp://127.0.0.1:1\n", encoding="utf-8")

    found = server_for_tests(tmp_path)

    assert found["state"] == "warning"
    assert "embedded" in found["finding"]
    assert (
        f"because Docker does not answer at tcp://127.0.0.1:1 (tc.host in {properties})." in found["finding"]
    )
    assert found["cure"] == f"Correct or remove tc.host in {properties}."


def test_docker_context_that_does_not_exist_is_named_instead_of_the_usual_socket(tmp_path: Path) -> None:
    found = server_for_tests(tmp_path, DOCKER_CONTEXT="nosuch")

    assert found["finding"].endswith(
        "because there is no Docker context 'nosuch', which DOCKER_CONTEXT names."
    )


def test_given_server_is_the_one_and_its_password_is_not_shown(tmp_path: Path, postgres_url: str) -> None:
    url = make_url(postgres_url)
    given = server_for_tests(tmp_path, TEST_DATABASE_URL=postgres_url)
    refused = server_for_tests(tmp_path, TEST_DATABASE_URL=f"postgresql://me:{SECRET}@127.0.0.1:1/x")

    assert given["state"] == "ok"
    assert f"given (postgresql://{url.username}@" in given["finding"]
    assert refused["state"] == "wrong"
    assert refused["cure"] == "Correct or unset TEST_DATABASE_URL."
    assert SECRET not in given["finding"] + refused["finding"]
