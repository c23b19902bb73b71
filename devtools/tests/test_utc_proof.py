"""`nox -s utc_check` leaves a database unchanged, reports its findings, and can be repeated."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text

from backend.database import connect
from backend.errors import UserError
from backend.tests.application import TOKEN, make_app
from backend.tests.support import run_python
from devtools.utc_check import command as utc_check
from devtools.utc_check.cases import zone_values
from devtools.utc_check.proof_report import Report
from devtools.utc_check.sandbox_schema import COMMENT, PREFIX, confined, plain_connection, sandbox_schema
from devtools.utc_check.verification import verify

SCHEMAS = text("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, :prefix) ORDER BY 1")
# This query shows every write: rows have a transaction id and a place, and even a rolled back insert moves a sequence.
STATE = text("""
SELECT (SELECT array_agg((c.xmin, c.ctid, c)::text) FROM companies AS c),
       (SELECT array_agg((v.xmin, v.ctid, v)::text) FROM alembic_version AS v),
       (SELECT array_agg((r.oid, r.xmin)::text ORDER BY r.oid) FROM pg_class AS r
        WHERE relnamespace = 'public'::regnamespace),
       (SELECT array_agg((sequencename, last_value)::text ORDER BY sequencename) FROM pg_sequences),
       (SELECT array_agg(s::text ORDER BY s::text) FROM pg_db_role_setting AS s
        WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
           OR (s.setdatabase = 0 AND s.setrole IN (0, current_user::regrole)))
""")


def prove(
    engine: Engine,
    *,
    make_app: Callable[[Engine], FastAPI] = make_app,
    only: Sequence[str] = (),
) -> Report:
    return verify(engine.url, make_app, zones=["Pacific/Apia"], only=only)


def state(engine: Engine) -> tuple[Any, ...]:
    with engine.connect() as connection:
        return tuple(connection.execute(STATE).one())


def schemas(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(SCHEMAS, {"prefix": PREFIX}))


@pytest.fixture
def live(engine: Engine) -> Engine:
    """Return an engine on a database with tables of the same names, and a row."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO companies (name) VALUES ('Acme')"))
    return engine


def test_live_database_is_not_changed(live: Engine) -> None:
    before = state(live)
    report = prove(live)

    assert report.failures == []
    assert report.is_proved
    assert state(live) == before
    assert schemas(live) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_schema_is_dropped_when_the_proof_is_interrupted_or_the_application_does_not_start(
    live: Engine, error: type[BaseException]
) -> None:
    before = state(live)

    def fail(_: Engine) -> FastAPI:
        assert len(schemas(live)) == 1
        raise error

    with pytest.raises(error):
        prove(live, make_app=fail)

    assert (schemas(live), state(live)) == ([], before)


def test_schema_of_a_killed_run_is_dropped_and_that_of_a_running_one_is_not(live: Engine) -> None:
    with live.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {PREFIX}somebodys; CREATE SCHEMA {PREFIX}left")
        connection.exec_driver_sql(f"COMMENT ON SCHEMA {PREFIX}left IS '{COMMENT}'")
    with sandbox_schema(live.url) as running, sandbox_schema(live.url) as new:
        assert schemas(live) == sorted([running, new, f"{PREFIX}somebodys"])


def test_engine_of_the_proof_sees_only_its_schema_and_refuses_autocommit(live: Engine) -> None:
    with sandbox_schema(live.url) as schema, confined(connect(live.url), schema) as engine:
        with engine.connect() as connection:
            connection.begin().rollback()
            assert connection.scalar(text("SELECT to_regclass('companies') IS NULL"))
        with (
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
            pytest.raises(RuntimeError, match="in autocommit"),
        ):
            connection.execute(text("SELECT 1"))


def test_read_only_database_is_reported_in_two_lines(live: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", live.url.render_as_string(hide_password=False))
    with live.begin() as connection:
        name = live.url.database
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

    with pytest.raises(UserError, match=r"cannot execute CREATE SCHEMA .*\nIt needs the primary server"):
        utc_check.main([])
    with plain_connection(live.url) as connection_:  # so that the fixture can reset this database
        connection_.execute("SET default_transaction_read_only = off")
        connection_.execute(f'ALTER DATABASE "{name}" RESET ALL'.encode())


def test_same_seed_gives_the_same_values() -> None:
    first, again, other = (zone_values("Pacific/Apia", seed) for seed in (7, 7, 8))

    assert first == again != other


def test_unknown_path_proves_nothing(engine: Engine) -> None:
    report = prove(engine, only=["telepathy"])

    assert (report.checks.total(), report.is_proved) == (0, False)


def test_json_lists_the_checks(live: Engine) -> None:
    url = live.url.render_as_string(hide_password=False)
    options = ("--json", "--seed", "7", "--only", "copy/http", "--only", "session/new")
    # The proof needs no token, although the API does.
    done = run_python(
        "-m", "devtools.database", "utc", *options, DATABASE_URL=url, APP_ENV="production", API_TOKEN=TOKEN
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["proved"], found["seed"], found["only"]) == (True, 7, ["copy/http", "session/new"])
    assert found["checks"].keys() == {"copy/http", "session/new"}
    assert "which starts sessions in UTC" in found["server"]
    assert found["total"] > 50


def test_proof_runs_on_an_ephemeral_server() -> None:
    options = ("--ephemeral", "--only", "session")
    done = run_python("-m", "devtools.database", "utc", *options, DOCKER_HOST="unix:///nonexistent")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "PROVED: 18 checks on 6 paths" in done.stdout


def test_failure_is_shown_with_the_value_and_the_command_that_repeats_it(
    live: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("backend.utc.instants._WHOLE_SECOND", "Z")
    monkeypatch.setenv("DATABASE_URL", live.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COLUMNS", "100")

    assert utc_check.main(["--seed", "7", "--only", "orm/http"]) == 1

    shown = capsys.readouterr().out
    assert "✗ orm/http: " in shown
    assert re.search(r"companies\.created_at +2024-03-10T02:30:00-05:00 America/New_York *\n", shown)
    assert "1710055800000000 (2024-03-10T07:30:00.000000Z)" in shown
    assert "nox -s utc_check -- --seed 7 --only orm/http" in shown
    assert "NOT PROVED" in shown
