"""A database is filled whole or not at all, only where it may be, and is then as good as one that was used."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from threading import Thread
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from backend import migrations
from backend.benchmarks import seed as benchmark
from backend.config import ROOT, ConfigurationError
from backend.database import SessionLocal, connect, init_db
from backend.devtools.postgres import start_ephemeral
from backend.devtools.seeding import __main__ as script
from backend.devtools.seeding.loading import TABLES, NotEmptyError, seed
from backend.devtools.seeding.plan import Plan
from backend.migrations import catalog
from backend.migrations.drift import differences
from backend.models.models import Base
from backend.models.types import TextEnum
from backend.scripts import init_db as init_script
from backend.tests import factories
from backend.tests.conftest import make_app

COUNTS = {table.name: table.count for table in TABLES}


@pytest.fixture
def target(postgres_clone: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database at head with nothing in it, which the settings name."""
    monkeypatch.setenv("DATABASE_URL", postgres_clone)
    engine = connect(postgres_clone)
    yield engine
    engine.dispose()


def fill(engine: Engine, *arguments: str) -> None:
    """Seed by the script with the name typed, for a container's host is not always this machine's."""
    script.main(["--yes-seed", str(engine.url.database), *arguments])


def refused(*arguments: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        script.main(list(arguments))
    return str(caught.value)


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def ask(engine: Engine, query: str) -> Any:  # noqa: ANN401  whatever is asked for
    with engine.connect() as connection:
        return connection.scalar(text(query))


def counts(engine: Engine) -> dict[str, int]:
    return {name: ask(engine, f"SELECT count(*) FROM {name}") for name in COUNTS}  # noqa: S608  our own names


def digest(engine: Engine) -> dict[str, str]:
    """Digest each table's rows, to the byte and in the order in which they lie there."""
    found = {}
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        for name in COUNTS:
            made = sha256()
            with driver.cursor().copy(f"COPY {name} TO STDOUT") as copy:
                for data in copy:
                    made.update(data)
            found[name] = made.hexdigest()
    return found


def state(engine: Engine) -> tuple[object, ...]:
    """Tell all that a seeding may change: rows, what the next ids are, the schema to the last word."""
    with engine.connect() as connection:
        schema = catalog.read(connection)
        ids = connection.execute(
            text("SELECT sequencename, last_value FROM pg_sequences ORDER BY sequencename")
        ).all()
    return digest(engine), ids, schema


def test_what_is_written_is_told_and_the_schema_is_as_it_was(
    target: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    # What the models do not know is put back as well, whatever it is called, in an order that is possible.
    run(
        target,
        """CREATE INDEX "100% :mine" ON usage_logs ((details ->> '%s')) WHERE action LIKE '%a'""",
        "ALTER TABLE usage_logs ADD COLUMN twin bigint UNIQUE, ADD FOREIGN KEY (twin) REFERENCES usage_logs (twin)",
    )
    with target.connect() as connection:
        before = catalog.read(connection)

    fill(target)

    assert counts(target) == COUNTS
    said = capsys.readouterr().out
    assert "seeded: 6 companies, 40 users, 30 user_settings, 8 procore_connections, 50 job_queue" in said
    assert "1,000 usage_logs; 1,134 rows in " in said
    with target.connect() as connection:
        assert catalog.read(connection) == before
    run(target, 'DROP INDEX "100% :mine"', "ALTER TABLE usage_logs DROP COLUMN twin CASCADE")
    with target.connect() as connection:
        assert differences(connection) == []
    assert ask(target, "SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == 0
    assert set(ask(target, "SELECT array_agg(tablename::text) FROM pg_stats")) >= {*COUNTS}, "ANALYZE was run"


def test_same_rows_every_time_whatever_the_zone_of_the_database(target: Engine) -> None:
    fill(target)
    before = digest(target)
    run(target, f"ALTER DATABASE \"{target.url.database}\" SET timezone = 'America/New_York'")
    target.dispose()

    fill(target, "--replace")

    assert digest(target) == before
    last = ask(target, "SELECT (extract(epoch FROM max(created_at)) * 1000000)::int8 FROM usage_logs")
    *_, (*_, expected) = TABLES[-1].rows(Plan())
    assert isinstance(expected, datetime)
    assert last == round(expected.timestamp() * 1_000_000)

    fill(target, "--replace", "--seed", "2")

    assert all(digest(target)[name] != before[name] for name in COUNTS)


def test_insert_that_it_is_measured_beside_writes_the_same_rows(
    target: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(target)
    expected = digest(target)
    monkeypatch.setattr(benchmark, "SMALL", Plan())

    benchmark.write_by_insert(target, {name: benchmark.as_parameters(name) for name in COUNTS})

    assert digest(target) == expected


def test_every_state_is_there(target: Engine) -> None:
    fill(target)

    never = {"password_hash", "refresh_token"}
    for name in COUNTS:
        for column in Base.metadata.tables[name].columns:
            found = set(ask(target, f'SELECT array_agg(DISTINCT "{column.name}"::text) FROM {name}'))  # noqa: S608  our own names
            if isinstance(column.type, TextEnum):
                assert found == set(column.type.enumeration.__members__.values()), column
            if column.type.python_type is bool:
                assert found == {"true", "false"}, column
            if column.nullable:
                assert (None in found) is (column.name not in never or found == {None}), column
                assert (found != {None}) is (column.name not in never), column
    outcomes = ask(target, "SELECT array_agg(DISTINCT details ->> 'outcome') FROM usage_logs")
    assert set(outcomes) == {"succeeded", "failed"}


def test_next_ids_follow_and_the_api_lists_what_is_there_while_it_runs(target: Engine) -> None:
    # The ids that somebody had before are given anew with the rest.
    with SessionLocal(bind=target) as session, session.begin():
        session.delete(factories.make_company(session))
    with TestClient(make_app(target)) as client:
        assert client.get("/api/v1/companies").json()["items"] == []

        fill(target)

        listed = client.get("/api/v1/companies").json()["items"]
        assert [company["id"] for company in listed] == [1, 2, 3, 4, 5, 6]
        people = client.get("/api/v1/companies/1/users").json()["items"]
        assert [person["role"] for person in people][:3] == ["owner", "admin", "member"]
        assert len(client.get("/api/v1/companies/1/user-settings").json()["items"]) == 9
        made = client.post("/api/v1/companies", json={"name": "New"})
        assert (made.status_code, made.json()["id"]) == (201, 7)
    with SessionLocal(bind=target) as session, session.begin():
        user = factories.make_user(session, company_id=7)
        job = factories.make_job(session, company_id=7)
        connection = factories.make_procore_connection(session, company_id=7)
        entry = factories.make_usage_log(session, company_id=7)
        assert (user.id, job.id, connection.id, entry.id) == (41, 51, 9, 1001)


def test_rows_that_are_there_are_told_and_kept_unless_they_are_to_be_replaced(target: Engine) -> None:
    with SessionLocal(bind=target) as session, session.begin():
        factories.make_user(session)
    before = state(target)

    said = refused("--yes-seed", str(target.url.database))

    assert "has rows already: 1 companies, 1 users.\n" in said
    assert "`nox -s db_seed -- --replace`" in said
    assert state(target) == before
    fill(target, "--replace")
    assert counts(target) == COUNTS
    with pytest.raises(NotEmptyError) as caught:
        seed(target, Plan(), advance=lambda _: None)
    assert caught.value.counts == COUNTS
    assert counts(target) == COUNTS


def test_table_that_is_not_ours_is_not_emptied(target: Engine) -> None:
    run(
        target,
        "CREATE TABLE notes (company_id bigint REFERENCES companies ON DELETE CASCADE)",
        "INSERT INTO companies (name) VALUES ('Kept')",
        "INSERT INTO notes SELECT id FROM companies",
    )
    before = state(target)

    said = refused("--replace", "--yes-seed", str(target.url.database))

    assert said.startswith(
        'Nothing was written: a table that is not ours holds on to the rows. Table "notes"'
    )
    assert state(target) == before


def test_what_is_no_instant_is_refused_by_the_driver(target: Engine) -> None:
    with pytest.raises(psycopg.DataError, match="a datetime without an offset from UTC names no instant"):
        seed(target, Plan(until=datetime(2026, 1, 1)), advance=lambda _: None)  # noqa: DTZ001  that is the point

    assert sum(counts(target).values()) == 0


def test_value_that_the_server_refuses_is_a_line_and_nothing_is_written(
    target: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(target, "ALTER TABLE usage_logs ADD CONSTRAINT none CHECK (quantity < 0)")

    said = refused("--yes-seed", str(target.url.database))

    assert "Nothing was written: the database at " in said
    assert 'refused: new row for relation "usage_logs" violates check constraint "none".' in said
    assert sum(counts(target).values()) == 0


def test_lock_that_another_holds_is_told_with_its_holder(target: Engine) -> None:
    with target.begin() as holder:
        holder.execute(text("SELECT * FROM companies"))

        said = refused("--lock-timeout", "0.05", "--yes-seed", str(target.url.database))

    assert said.startswith("Nothing was written: another connection has held a lock for 0.05 s.\n  pid ")
    assert "idle in a transaction" in said
    assert sum(counts(target).values()) == 0


def test_row_that_another_is_about_to_write_is_waited_for_and_seen(target: Engine) -> None:
    refusals: list[NotEmptyError] = []

    def try_to_seed() -> None:
        with pytest.raises(NotEmptyError) as caught:
            seed(target, Plan(), lock_timeout=30, advance=lambda _: None)
        refusals.append(caught.value)

    thread = Thread(target=try_to_seed)
    with target.begin() as writer:
        writer.execute(text("INSERT INTO companies (name) VALUES ('Mine')"))
        thread.start()
        wait_for(target, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted", expected=True)
    thread.join()

    assert [refusal.counts for refusal in refusals] == [{"companies": 1}]


@pytest.mark.parametrize(("revision", "found"), [(None, "not there yet"), ("87abf947398d", "behind")])
def test_schema_that_is_not_at_head_is_told_with_the_cure(
    revision: str | None, found: str, postgres_empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_empty)
    engine = connect(postgres_empty)
    if revision:
        with engine.begin() as connection:
            migrations.upgrade(connection, revision)
    engine.dispose()

    said = refused("--yes-seed", str(engine.url.database))

    assert said.startswith("Nothing was written: the schema of ")
    assert found in said
    assert said.endswith("\nBring it to head with `nox -s db_init`.")


def test_schema_of_newer_code_is_left_alone(target: Engine) -> None:
    run(target, "UPDATE alembic_version SET version_num = 'newer'")

    assert "is at revision newer, which this code does not know" in refused(
        "--yes-seed", str(target.url.database)
    )
    assert sum(counts(target).values()) == 0


@pytest.mark.parametrize("by", ["settings", "mark"])
def test_production_is_refused_even_when_the_name_is_typed(
    by: str, target: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "settings":
        monkeypatch.setenv("APP_ENV", "production")
        monkeypatch.setenv("API_TOKEN", "t" * 32)
    else:
        init_db(target, environment="production")

    for arguments in ([], ["--replace"]):
        said = refused("--yes-seed", str(target.url.database), *arguments)
        assert "production" in said
        assert "Nothing was written" in said
    assert sum(counts(target).values()) == 0


def test_database_without_a_mark_wants_its_name_typed(target: Engine) -> None:
    said = refused()

    assert "It bears no mark of development or test" in said
    assert f"`nox -s db_seed -- --yes-seed {target.url.database}`" in said
    assert "`nox -s db_seed -- --replace --yes-seed " in refused("--replace")
    assert "The name typed is 'other'" in refused("--yes-seed", "other")
    asked = ("--scale", "7", "--until", "2026-01-01T00:00:00Z")
    assert "`nox -s db_seed -- --scale 7 --until 2026-01-01T00:00:00.000000Z --yes-seed " in refused(*asked)
    assert sum(counts(target).values()) == 0


def test_database_on_this_machine_with_its_mark_is_seeded_without_more_ado(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_ephemeral() as server:
        monkeypatch.setenv("DATABASE_URL", server.url)
        init_script.main([])

        script.main(["--until", "2027-03-01T08:00:00+02:00", "--scale", "2"])

    assert "12 companies, 80 users" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scale", "0"], "must be from 1 to 1,000,000"),
        (["--until", "2026-01-01"], "send an RFC 3339 date-time with Z or an offset"),
        (["--until", "1999-12-31T23:59:59Z"], "must lie in the years from 2000 to 8999"),
        (["--lock-timeout", "1e300"], "it must be a number above 0 and up to 1,000,000"),
        (["--lock-timeout", "nan"], "it must be a number above 0 and up to 1,000,000"),
        (["--lock-timeout", "soon"], "it must be a number above 0 and up to 1,000,000"),
    ],
)
def test_argument_that_cannot_be_is_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        script.main(arguments)

    assert caught.value.code == 2
    assert said in capsys.readouterr().err


END_OF_SERVER_PROCESS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_copy WHERE datname = current_database()"
)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL, "the server"], ids=str)
def test_stopped_in_the_middle_all_is_as_it_was(by: signal.Signals | str, target: Engine) -> None:
    fill(target, "--seed", "2")
    before = state(target)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "backend.devtools.seeding", "--scale", "300", "--replace", "--yes-seed",
            str(target.url.database),
        ],
        cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    in_the_log = (
        "SELECT coalesce(max(tuples_processed), 0) > 1000 FROM pg_stat_progress_copy "
        "WHERE datname = current_database() AND relid = 'usage_logs'::regclass"
    )
    wait_for(target, in_the_log, expected=True)
    if isinstance(by, signal.Signals):
        process.send_signal(by)
    else:
        run(target, END_OF_SERVER_PROCESS)
    _, said = process.communicate(timeout=30)

    assert "Traceback" not in said
    if by == signal.SIGINT:
        assert process.returncode == 130
    elif by == "the server":
        assert process.returncode == 1
        assert said.startswith("Nothing was written: ")
    wait_for(target, "SELECT count(*) FROM pg_stat_progress_copy WHERE datname = current_database()", 0)
    assert state(target) == before


def wait_for(engine: Engine, query: str, expected: object) -> None:
    deadline = time.monotonic() + 30
    while ask(engine, query) != expected:
        assert time.monotonic() < deadline, query
        time.sleep(0.02)


def test_progress_is_shown_at_a_terminal_once_it_takes_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown() -> str:
        with script.progress(1000) as advance:
            advance(400)
            advance(600)
        return capsys.readouterr().err

    assert shown() == ""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert shown() == "", "what is done at once needs none"
    monkeypatch.setattr(script, "QUIET_SECONDS", 0)
    assert "of 1,000 rows" in shown()
