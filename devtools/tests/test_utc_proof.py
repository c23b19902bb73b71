"""The proof leaves a database as it found it, tells what it found, and can be repeated."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, Engine, text

from backend.config import ROOT
from backend.database import connect
from backend.models.models import Base
from backend.tests.application import TOKEN, make_app
from devtools.utc_check import Subject
from devtools.utc_check import __main__ as check_utc
from devtools.utc_check import our_tables as utc_subjects
from devtools.utc_check.application import Client
from devtools.utc_check.ground import break_ground
from devtools.utc_check.report import Report
from devtools.utc_check.values import catalogue, microseconds_of
from devtools.utc_check.verify import verify

SCHEMAS = text(r"SELECT nspname FROM pg_namespace WHERE nspname LIKE 'utc\_check\_%'")
# What any write at all would move: each row has its transaction and place, and an insert that is undone a sequence.
TOUCHED = text("""
SELECT (SELECT array_agg((c.xmin, c.ctid, c)::text) FROM companies AS c),
       (SELECT array_agg((v.xmin, v.ctid, v)::text) FROM alembic_version AS v),
       (SELECT array_agg((r.oid, r.xmin)::text ORDER BY r.oid) FROM pg_class AS r
        WHERE relnamespace = 'public'::regnamespace),
       (SELECT array_agg((sequencename, last_value)::text ORDER BY sequencename) FROM pg_sequences),
       (SELECT array_agg(s::text ORDER BY s::text) FROM pg_db_role_setting AS s
        WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
           OR (s.setdatabase = 0 AND s.setrole IN (0, current_user::regrole)))
""")
# Other tests, beside these on the same server, have databases and roles of their own.
SETTINGS = text("""
SELECT s::text FROM pg_db_role_setting AS s
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1
""")


def companies(connection: Connection) -> Sequence[Subject]:
    return utc_subjects.subjects(connection)[:1]


def prove(engine: Engine, **options: Any) -> Report:  # noqa: ANN401 - verify's
    return verify(engine, Base, make_app, companies, **{"zones": ["Asia/Kathmandu"], **options})


def touched(engine: Engine) -> tuple[Any, ...]:
    with engine.connect() as connection:
        return tuple(connection.execute(TOUCHED).one())


def schemas(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(SCHEMAS))


@pytest.fixture
def live(engine: Engine) -> Engine:
    """A database with tables of the same names, and rows that are somebody's."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO companies (name) VALUES ('somebody''s')"))
    return engine


def test_live_database_is_left_as_it_was(live: Engine) -> None:
    before = touched(live)
    report = prove(live)

    assert report.is_proved
    assert touched(live) == before
    assert schemas(live) == []


def test_schema_goes_when_the_proof_is_interrupted(live: Engine) -> None:
    before = touched(live)

    def interrupt(_connection: Connection) -> Sequence[Subject]:
        assert len(schemas(live)) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(live, Base, make_app, interrupt)

    assert schemas(live) == []
    assert touched(live) == before


def test_what_a_killed_run_left_is_removed_and_what_a_running_one_uses_is_not(live: Engine) -> None:
    with live.begin() as connection:
        connection.execute(text("CREATE SCHEMA utc_check_somebodys"))
    with break_ground(live) as running:
        with break_ground(live) as left, live.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {left.schema}_left"))
            comment = connection.scalar(
                text("SELECT obj_description(CAST(:name AS regnamespace), 'pg_namespace')"),
                {"name": left.schema},
            )
            connection.execute(text(f"COMMENT ON SCHEMA {left.schema}_left IS '{comment}'"))
        with break_ground(live) as new:
            assert sorted(schemas(live)) == sorted([running.schema, new.schema, "utc_check_somebodys"])


def test_transactions_of_the_proof_reach_its_schema_alone(live: Engine) -> None:
    with break_ground(live) as ground, ground.twin() as twin:
        with twin.connect() as connection:
            assert connection.scalar(text("SHOW search_path")) == ground.schema
            connection.rollback()
            assert connection.scalar(text("SELECT to_regclass('companies') IS NULL"))
        with (
            twin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
            pytest.raises(RuntimeError, match="in autocommit"),
        ):
            connection.execute(text("SELECT 1"))


def test_given_engine_keeps_its_own_listeners(live: Engine) -> None:
    with break_ground(live) as ground, ground.twin(), live.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM companies")) == 1


def test_database_that_is_read_only_is_told_so(live: Engine) -> None:
    with live.begin() as connection:
        connection.execute(
            text(f'ALTER DATABASE "{live.url.database}" SET default_transaction_read_only = on')
        )
    engine = connect(live.url)
    try:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="cannot execute CREATE SCHEMA"):
            prove(engine)
    finally:
        engine.dispose()


def test_same_seed_gives_the_same_instants() -> None:
    assert catalogue("Pacific/Apia", 7) == catalogue("Pacific/Apia", 7) != catalogue("Pacific/Apia", 8)


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "UTC"]
)
def test_every_value_is_the_instant_that_it_is_said_to_be(zone: str) -> None:
    values = catalogue(zone, 7)

    assert [microseconds_of(value.held) for value in values] == [value.microseconds for value in values]


def test_database_of_its_own_is_moved_by_its_settings_and_moved_back(engine: Engine) -> None:
    with engine.connect() as connection:
        before = connection.scalars(SETTINGS).all()
    zones = ["America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
    report = prove(engine, zones=zones, owns_database=True, only="session")

    assert (report.failures, report.is_proved) == ([], True)
    with engine.connect() as connection:
        assert connection.scalars(SETTINGS).all() == before


def test_what_moves_the_sessions_of_others_is_reported(engine: Engine) -> None:
    name = engine.url.database
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE \"{name}\" SET timezone = 'Pacific/Apia'"))
        connection.execute(text(f"ALTER DATABASE \"{name}\" SET datestyle = 'German'"))
        connection.execute(text("CREATE TABLE theirs (at timestamp)"))
    engine.dispose()
    report = prove(engine, only="session")

    assert report.is_proved
    remarks = [found.text for found in report.observations if found.is_remarkable]
    assert f"TimeZone=Pacific/Apia for every role in {name}" in remarks
    assert f"DateStyle=German for every role in {name}" in remarks
    assert any(remark.startswith("theirs.at is timestamp without time zone") for remark in remarks)


def test_path_that_is_none_proves_nothing(engine: Engine) -> None:
    report = prove(engine, only="telepathy")

    assert (report.total, report.is_proved) == (0, False)


def test_application_that_does_not_start_is_no_finding_but_an_error(engine: Engine) -> None:
    def broken(engine: Engine) -> FastAPI:
        app = make_app(engine)
        app.router.lifespan_context = None  # type: ignore[assignment]  # whatever it is, it does not start
        return app

    with pytest.raises(TypeError):
        verify(engine, Base, broken, companies)

    assert schemas(engine) == []


def test_client_gives_what_an_application_raises_as_a_500(engine: Engine) -> None:
    app = make_app(engine)

    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("on purpose")

    with Client(app) as client:
        assert client.send("GET", "/health/live").json() == {"status": "ok"}
        answer = client.send("GET", "/broken")

    assert (answer.status, answer.text) == (500, "ZeroDivisionError: on purpose")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devtools.utc_check", *arguments],
        env={**environment, "COLUMNS": "100"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_script_says_in_json_what_was_checked(live: Engine) -> None:
    url = live.url.render_as_string(hide_password=False)
    done = run("--json", "--seed", "7", "--zone", "Asia/Kathmandu", "--only", "copy/http", DATABASE_URL=url)

    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["proved"], found["seed"], found["zones"]) == (True, 7, ["Asia/Kathmandu"])
    assert list(found["paths"]) == ["copy/http"]
    assert found["checks"] == found["paths"]["copy/http"]["checks"] > 100


def test_script_needs_no_token_where_the_api_does(live: Engine) -> None:
    url = live.url.render_as_string(hide_password=False)
    options = ("--zone", "Asia/Kathmandu", "--only", "http/http")
    done = run(*options, DATABASE_URL=url, APP_ENV="production", API_TOKEN=TOKEN)

    assert (done.returncode, done.stderr) == (0, "")
    assert "PROVED: " in done.stdout


def test_ephemeral_server_is_moved_by_the_databases_own_settings() -> None:
    command = [sys.executable, "-m", "devtools.database", "utc", "--ephemeral", "--only", "session"]
    done = subprocess.run(
        command,
        env=os.environ | {"DOCKER_HOST": "unix:///nonexistent", "COLUMNS": "100"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "PROVED: 24 checks on 6 paths" in done.stdout


def test_failure_is_shown_with_the_value_and_the_command_that_repeats_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("backend.utc.instants._WHOLE_SECOND", "Z")
    monkeypatch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COLUMNS", "100")

    with pytest.raises(SystemExit) as ended:
        check_utc.main(["--seed", "7", "--zone", "Asia/Kathmandu", "--only", "orm/http"])

    shown = capsys.readouterr().out
    assert ended.value.code == 1
    assert "✗ orm/http: " in shown
    assert re.search(r"companies\.created_at +0001-01-02T00:00:00\+00:00 *\n", shown)
    assert "-62135510400000000 (0001-01-02T00:00:00.000000Z)" in shown
    assert "0001-01-02T00:00:00+00:00" in shown
    assert "nox -s utc_check -- --seed 7 --zone Asia/Kathmandu --only 'orm/http'" in shown
    assert "NOT PROVED" in shown


def test_all_tables_are_proved(engine: Engine) -> None:
    report = verify(engine, Base, make_app, utc_subjects.subjects, owns_database=True)

    assert report.failures == []
    assert report.is_proved
