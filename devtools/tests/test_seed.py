"""`db_seed`: the same rows for the same seed, all of them or none."""

import signal
import subprocess
import sys
import time
from hashlib import sha256

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from backend.config import ROOT
from backend.errors import UserError
from backend.migrations import environment_marker
from backend.tests.support import ask, execute
from devtools import seed

COUNTS = {
    "companies": 6,
    "users": 40,
    "user_settings": 30,
    "procore_connections": 8,
    "job_queue": 50,
    "usage_logs": 1000,
}


@pytest.fixture
def target(engine: Engine, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Give the engine on the configured database, which is marked as development."""
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    with engine.begin() as connection:
        environment_marker.write(connection, "development")
    return engine


def fill(engine: Engine, *arguments: str) -> None:
    # With the typed name, because a container's host may be remote.
    seed.main(["--yes-seed", str(engine.url.database), *arguments])


def refused(engine: Engine, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        fill(engine, *arguments)
    return str(caught.value)


def counts(engine: Engine) -> dict[str, int]:
    return {name: ask(engine, f"SELECT count(*) FROM {name}") for name in COUNTS}


def digests(engine: Engine) -> dict[str, str]:
    """Return a digest of each table's rows, in their physical order."""
    found = {}
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        for name in COUNTS:
            with driver.cursor().copy(f"COPY {name} TO STDOUT") as rows:
                found[name] = sha256(b"".join(bytes(each) for each in rows)).hexdigest()
    return found


def test_six_tables_are_filled_and_the_numbers_are_reported(
    target: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(target)

    assert counts(target) == COUNTS
    words = (
        "6 companies, 40 users, 30 user_settings, 8 procore_connections, 50 job_queue, 1,000 usage_logs, in "
    )
    assert words in capsys.readouterr().out
    assert ask(target, "SELECT count(*) FROM pg_stats WHERE tablename = 'usage_logs'") > 0, "ANALYZE was run"


def test_same_seed_gives_the_same_rows_and_another_gives_others(target: Engine) -> None:
    fill(target, "--seed", "7")
    first = digests(target)
    fill(target, "--seed", "7", "--replace")
    assert digests(target) == first

    fill(target, "--seed", "8", "--replace")

    assert counts(target) == COUNTS
    assert all(digest != first[name] for name, digest in digests(target).items())


def test_scale_multiplies_all_rows(target: Engine) -> None:
    fill(target, "--scale", "50")

    assert counts(target) == {name: 50 * number for name, number in COUNTS.items()}
    assert ask(target, "SELECT count(DISTINCT name) FROM companies") == 300


def test_rows_have_every_state_and_no_real_addresses_passwords_or_tokens(target: Engine) -> None:
    fill(target)

    for column, number in (
        ("status FROM job_queue", 5),
        ("status FROM procore_connections", 3),
        ("environment FROM procore_connections", 2),
        ("grant_type FROM procore_connections", 2),
        ("role FROM users", 3),
        ("is_active FROM users", 2),
        ("is_active FROM companies", 2),
    ):
        assert ask(target, f"SELECT count(*) FROM (SELECT DISTINCT {column})") == number, column
    assert ask(target, "SELECT count(*) FROM users WHERE email NOT LIKE '%@example.com'") == 0
    assert ask(target, "SELECT count(password_hash) FROM users") == 0
    tokens = "SELECT string_agg(DISTINCT coalesce(access_token, refresh_token), '') FROM procore_connections"
    assert ask(target, tokens) == seed.NO_TOKEN
    assert ask(target, "SELECT max(created_at) FROM usage_logs") <= seed.UNTIL
    assert ask(target, "SELECT bool_and(updated_at >= created_at) FROM procore_connections") is True
    in_order = "SELECT array_agg(id ORDER BY id) = array_agg(id ORDER BY created_at) FROM usage_logs"
    assert ask(target, in_order) is True


def test_application_continues_after_the_last_id(target: Engine, client: TestClient) -> None:
    fill(target)

    made = client.post("/api/v1/companies", json={"name": "Next"})

    assert (made.status_code, made.json()["id"]) == (201, 7)


def test_tables_with_rows_are_left_alone_unless_they_are_to_be_replaced(target: Engine) -> None:
    execute(target, "INSERT INTO companies (name) VALUES ('Mine')")

    said = refused(target, "--seed", "3")

    assert "already has rows, in companies" in said
    assert "`nox -s db_seed -- --seed 3 --scale 1 --replace` deletes them first." in said
    assert counts(target) == COUNTS | dict.fromkeys(COUNTS, 0) | {"companies": 1}
    fill(target, "--replace")
    assert ask(target, "SELECT count(*) FROM companies WHERE name = 'Mine'") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_seeding_changes_nothing(target: Engine, number: signal.Signals) -> None:
    execute(target, "INSERT INTO companies (name) VALUES ('Mine')")
    name = str(target.url.database)
    seed = ("seed", "--scale", "500", "--replace", "--yes-seed", name)
    command = (sys.executable, "-m", "devtools.database", *seed)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 30
    is_copying = "SELECT count(*) FROM pg_stat_progress_copy WHERE datname = current_database()"
    while ask(target, is_copying) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    process.send_signal(number)
    said = process.communicate()[0]

    assert process.returncode == (130 if number is signal.SIGINT else -number), said
    assert b"Traceback" not in said
    assert counts(target) == dict.fromkeys(COUNTS, 0) | {"companies": 1}


def test_lost_connection_is_reported_in_a_line(target: Engine) -> None:
    execute(
        target,
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'",
    )
    execute(target, "CREATE TRIGGER die BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION die()")

    assert refused(target).startswith("Nothing was written: ")

    assert counts(target) == dict.fromkeys(COUNTS, 0)


def test_seeding_does_not_wait_long_for_a_lock(target: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed, "LOCK_SECONDS", 0.2)
    with target.begin() as connection:
        connection.execute(text("LOCK TABLE users"))
        assert "another connection holds a lock. It may be one of these:\n  pid " in refused(target)


def test_schema_that_is_not_at_head_is_refused(target: Engine) -> None:
    execute(target, "UPDATE alembic_version SET version_num = 'other'")

    assert "is at revision other, the code at " in refused(target)


def test_production_and_unmarked_databases_are_refused(
    target: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(target, "COMMENT ON TABLE alembic_version IS NULL")
    with pytest.raises(UserError, match=r"Nothing was changed in (.|\n)*--yes-seed"):
        seed.main([])
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("API_TOKEN", "x" * 32)

    assert "a production database is never seeded" in refused(target)


@pytest.mark.parametrize("scale", ["0", "100001"])
def test_scale_out_of_range_is_a_usage_error(target: Engine, scale: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        fill(target, "--scale", scale)
