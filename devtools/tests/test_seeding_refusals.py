"""A database is filled only where it may be; where it may not, that is told, and nothing is written."""

from datetime import datetime

import psycopg
import pytest
from sqlalchemy import Engine, text

from backend import migrations
from backend.database import SessionLocal, connect, init_db
from backend.tests import factories
from devtools.seeding import __main__ as script
from devtools.seeding.loading import NotEmptyError, seed
from devtools.seeding.plan import Plan
from devtools.tests.seeded import COUNTS, counts, fill, refused, run, state


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


@pytest.mark.parametrize(("revision", "found"), [(None, "not there yet"), ("87abf947398d", "behind")])
def test_schema_that_is_not_at_head_is_told_with_the_cure(
    revision: str | None, found: str, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_url)
    engine = connect(empty_url)
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
