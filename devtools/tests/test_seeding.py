"""A database is filled whole or not at all, and is then as good as one that was used."""

import os
import signal
import subprocess
import sys
from datetime import datetime
from threading import Thread

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from backend.config import ROOT
from backend.database import SessionLocal
from backend.migrations import catalog
from backend.migrations.drift import differences
from backend.models.models import Base
from backend.models.types import TextEnum
from backend.scripts import init_db as init_script
from backend.tests import factories
from backend.tests.application import make_app
from benchmarks import seed as benchmark
from devtools.seeding import __main__ as script
from devtools.seeding.loading import TABLES, NotEmptyError, seed
from devtools.seeding.plan import Plan
from devtools.tests.seeded import COUNTS, ask, counts, digest, fill, run, state, wait_for
from freshpg import start_ephemeral


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


def test_database_on_this_machine_with_its_mark_is_seeded_without_more_ado(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_ephemeral() as server:
        monkeypatch.setenv("DATABASE_URL", server.url)
        init_script.main([])

        script.main(["--until", "2027-03-01T08:00:00+02:00", "--scale", "2"])

    assert "12 companies, 80 users" in capsys.readouterr().out


END_OF_SERVER_PROCESS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_copy WHERE datname = current_database()"
)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL, "the server"], ids=str)
def test_stopped_in_the_middle_all_is_as_it_was(by: signal.Signals | str, target: Engine) -> None:
    fill(target, "--seed", "2")
    before = state(target)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "devtools.seeding", "--scale", "300", "--replace", "--yes-seed",
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
