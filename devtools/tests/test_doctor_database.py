"""The doctor's checks of the database, and of the server that the tests will use."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, Engine, make_url, text

from backend import migrations
from backend.config import ROOT
from backend.database import connect
from backend.tests.support import execute
from devtools.doctor import check_database
from devtools.doctor.check_database import Source, check_clock, check_engine
from devtools.doctor.docker_cli import Docker, Machine
from devtools.doctor.finding import Finding, State
from freshpg import sqlalchemy_url, start_ephemeral

SECRET = "do-not-print-this"


def look(engine: Engine) -> dict[str, Finding]:
    return {each.name: each for each in check_engine(engine, Source.CONFIGURED)}


def test_database_at_head_is_ok(engine: Engine) -> None:
    found = look(engine)

    assert {each.state for each in found.values()} == {State.OK}, found
    assert list(found) == ["server", "schema", "drift", "utc", "clock", "collation"]
    assert found["server"].finding.endswith(f"/{engine.url.database} (the configured one).")


def test_database_without_schema_is_a_warning(empty_engine: Engine) -> None:
    found = look(empty_engine)

    assert (found["schema"].state, found["schema"].cure) == (State.WARNING, "`nox -s db_init`.")
    assert found["drift"].state is State.UNKNOWN


def test_schema_that_is_not_at_head_is_wrong(engine: Engine) -> None:
    with engine.begin() as connection:
        migrations.downgrade(connection, "-1")
    behind = look(engine)["schema"]
    execute(engine, "UPDATE alembic_version SET version_num = 'unheard_of'")
    ahead = look(engine)["schema"]

    assert behind.state is ahead.state is State.WRONG
    assert "The schema is behind, at revision " in behind.finding
    assert "is at revision unheard_of, which this code does not know." in ahead.finding


def test_drift_is_wrong_and_names_the_first_three(engine: Engine) -> None:
    execute(engine, *(f"CREATE TABLE extra_{number} (a int)" for number in range(5)))

    found = look(engine)["drift"]
    assert found.state is State.WRONG
    assert "table `extra_0`" in found.finding
    assert found.finding.endswith(" and 2 more.")


def test_sessions_that_start_outside_utc_are_a_warning_whose_cure_works(engine: Engine) -> None:
    execute(engine, f"ALTER DATABASE \"{engine.url.database}\" SET timezone = 'Asia/Tokyo'")

    found = look(engine)["utc"]
    assert found.state is State.WARNING
    assert "start in Asia/Tokyo, by database" in found.finding
    execute(engine, found.cure.partition(": ")[2])
    assert look(engine)["utc"].state is State.OK


def test_clock_that_differs_is_a_warning(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    with engine.connect() as connection:
        monkeypatch.setattr(time, "time", lambda: now() - 90)
        (found,) = check_clock(connection)

    assert found.state is State.WARNING
    assert re.search(r"is (89|9[01]) s ahead of this machine's\.", found.finding)


def test_collation_of_another_version_is_a_warning_whose_cure_works() -> None:
    """This happens after a change of the image: the database recorded another version than that of the library."""
    # A server of its own, because the check looks at all databases of a server.
    with start_ephemeral() as server, psycopg.connect(server.url, autocommit=True) as session:
        engine = connect(sqlalchemy_url(server.url))
        execute(engine, "UPDATE pg_database SET datcollversion = '0.1' WHERE datname = current_database()")

        found = look(engine)["collation"]
        assert found.state is State.WARNING
        assert "wrongly in postgres: collation version 0.1, the server's " in found.finding
        assert found.cure.startswith("`nox -s db_shell -- -c 'REINDEX DATABASE ")
        for statement in found.cure.split("'")[1::2]:
            session.execute(statement.encode())
        assert look(engine)["collation"].state is State.OK
        engine.dispose()


def test_lock_that_another_connection_holds_is_unknown_within_seconds(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE alembic_version"))
        found = look(engine)["schema"]

    assert found.state is State.UNKNOWN
    assert "lock timeout" in found.finding


@pytest.fixture(scope="module")
def local() -> Iterator[URL]:
    """Return the URL of a server on 127.0.0.1 that asks for a password; the run's own may be elsewhere."""
    with start_ephemeral() as server:
        yield make_url(server.url)


def find(server: URL, monkeypatch: pytest.MonkeyPatch, **variables: str) -> Finding:
    """Check for the database of these settings, on the port of the server."""
    variables = {"DB_PORT": str(server.port), "POSTGRES_USER": str(server.username)} | variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (found,) = check_database.check(Machine(ROOT, Docker()))
    return found


def test_missing_database_is_created_from_the_host(local: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens after POSTGRES_DB was changed: a volume keeps the name that it was created with."""
    user, password, port = local.username, str(local.password), local.port
    compose = find(local, monkeypatch, POSTGRES_PASSWORD=password, POSTGRES_DB="no such")
    configured = find(local, monkeypatch, POSTGRES_PORT=str(port))

    assert compose.state is configured.state is State.WRONG
    assert compose.finding == f"There is no database 'no such' at 127.0.0.1:{port}/no such."
    assert compose.cure == f"Create it: `docker compose exec db createdb -U {user} 'no such'`."
    assert configured.cure == f"Create it: `createdb -h 127.0.0.1 -p {port} -U {user} 'no such'`."


def test_wrong_password_is_reported_with_its_cure(local: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(local, monkeypatch, POSTGRES_PASSWORD=SECRET)

    assert found.state is State.WRONG
    assert f"refuses user '{local.username}' and its password." in found.finding
    assert f"`docker compose exec db psql -U {local.username} -d postgres -c '\\password'`" in found.cure
    assert SECRET not in found.finding + found.cure


def test_configured_server_that_does_not_answer_is_wrong(
    unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:{SECRET}@127.0.0.1:{unused_port}/x")

    (found,) = check_database.check(Machine(ROOT, Docker()))

    assert found.state is State.WRONG
    assert found.finding.startswith(f"Could not connect to 127.0.0.1:{unused_port}/x: ")
    assert SECRET not in found.finding


def server_for_tests(home: Path, **variables: str) -> dict[str, str]:
    """Run the check in a new process, because testcontainers reads its file only once; return the finding."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not ("DOCKER" in name or name == "TEST_DATABASE_URL")
    }
    said = subprocess.run(
        [sys.executable, "-B", "-m", "devtools.doctor", "--json", "--only", "tests"],
        cwd=ROOT, env=kept | {"HOME": str(home)} | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (found,) = json.loads(said.stdout)
    return dict(found)


def test_stale_engine_in_testcontainers_file_is_a_warning_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / ".testcontainers.properties").write_text("tc.host=tcp://127.0.0.1:1\n", encoding="utf-8")
    named_by = "tc.host in ~/.testcontainers.properties"

    found = server_for_tests(tmp_path)

    assert found["state"] == "warning"
    assert f"because Docker does not answer at tcp://127.0.0.1:1 ({named_by})." in found["finding"]
    assert found["cure"] == f"Correct or remove {named_by}."


def test_docker_context_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    found = server_for_tests(tmp_path, DOCKER_CONTEXT="nosuch")

    assert found["finding"].endswith("because there is no Docker context 'nosuch'.")


def test_given_server_is_reported_as_the_tests_server(tmp_path: Path, postgres_url: str) -> None:
    given = server_for_tests(tmp_path, TEST_DATABASE_URL=postgres_url)
    refused = server_for_tests(tmp_path, TEST_DATABASE_URL=f"postgresql://me:{SECRET}@127.0.0.1:1/x")

    assert (given["state"], refused["state"]) == ("ok", "wrong")
    assert given["finding"].endswith(", as TEST_DATABASE_URL says.")
    assert refused["cure"] == "Correct or unset TEST_DATABASE_URL."
