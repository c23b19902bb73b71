"""Who is told of drift, in which words: a start in development, `db_check`, and a program that reads JSON."""

import json
import time
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from backend import migrations
from backend.config import Settings, load_settings
from backend.database import connect, init_db, schema_state
from backend.errors import UserError
from backend.main import create_app
from backend.migrations.catalog import Thing
from backend.migrations.drift import Difference
from backend.startup import tell_drift
from devtools.migrations import check, check_db
from devtools.migrations.check_db import Comparison, lines
from freshpg import sqlalchemy_url, start_ephemeral


def change(engine: Engine, *changes: str) -> None:
    with engine.begin() as connection:
        for each in changes:
            connection.execute(text(each))


def settings_for(engine: Engine, **values: object) -> Settings:
    url = engine.url.render_as_string(hide_password=False)
    return load_settings(_env_file=None, database_url=url, **values)


@pytest.fixture
def configured(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
    return engine


def told_at_start(engine: Engine) -> list[str]:
    told: list[str] = []
    thread = tell_drift(engine, settings_for(engine), tell=told.append)
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
    return told


def test_start_in_development_says_it_in_two_lines(engine: Engine) -> None:
    change(
        engine, *(f"CREATE TABLE old_{name} (id int)" for name in "abc"), "ALTER TABLE users ADD nick text"
    )

    assert told_at_start(engine) == [
        (
            f"The database {engine.url.host}:{engine.url.port}/{engine.url.database} differs from the models: "
            "table `old_a`, table `old_b`, table `old_c` and 1 more."
        ),
        (
            "`nox -s db_check` says how, and what to do: `nox -s db_revision` for what the migrations lack, "
            "`nox -s db_reset` for a database built anew."
        ),
    ]


def test_start_with_nothing_to_tell_tells_nothing(engine: Engine) -> None:
    assert told_at_start(engine) == []


def test_start_of_the_application_says_it_in_the_log(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    change(engine, "ALTER TABLE users ADD nick text")

    with TestClient(create_app(settings_for(engine), engine=engine)):
        deadline = time.monotonic() + 10
        while len(caplog.messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)

    first, second = caplog.messages
    assert first.endswith("differs from the models: column `nick` of users.")
    assert second.startswith("`nox -s db_check` says how")


@pytest.mark.parametrize("environment", ["test", "production"])
def test_start_elsewhere_does_not_compare(environment: str, engine: Engine) -> None:
    assert tell_drift(engine, settings_for(engine, app_env=environment, api_token="x" * 32)) is None


def test_check_of_a_database_as_it_should_be_says_so(
    configured: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    check_db.main([])

    assert capsys.readouterr().out.endswith(f"/{configured.url.database} is as the models say.\n")


def told_by_check(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        check_db.main(list(arguments))
    assert caught.value.code == 1
    return capsys.readouterr().out


def test_check_tells_table_by_table_what_to_do(
    configured: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    change(configured, "CREATE TABLE old_jobs (id int)", "ALTER TABLE users DROP CONSTRAINT ck_users_role")

    said = told_by_check(capsys).splitlines()

    assert said[0].endswith("and the models differ in 2 places:")
    assert said[1:] == [
        "  old_jobs",
        "    table `old_jobs` is in the database and in no model: by hand `DROP TABLE old_jobs`, or `nox -s db_reset`",
        "  users",
        (
            "    CHECK `ck_users_role` is in the models and not in the database: by hand `ALTER TABLE users ADD "
            "CONSTRAINT ck_users_role CHECK (role = ANY (ARRAY['owner'::text, 'admin'::text, 'member'::text]))`, or "
            "`nox -s db_reset`"
        ),
        "By hand means in `nox -s db_shell`; `nox -s db_reset` drops every row.",
    ]


def test_what_the_migrations_have_too_takes_a_migration(engine: Engine) -> None:
    """As a table whose model was taken out: what it wants is a revision, on every database."""
    [table] = [Difference(Thing("old_jobs", "table", "old_jobs"), "extra", {}, {})]
    with engine.connect() as connection:
        state = schema_state(connection)

    of_migrations = list(lines(Comparison("the migrations", state, [table])))
    of_database = list(lines(Comparison("the database x", state, [table], elsewhere=(table,))))

    assert of_migrations[2] == (
        '    table `old_jobs` is in the migrations and in no model: `nox -s db_revision -- -m "..."` to drop it'
    )
    assert of_database[2] == (
        '    table `old_jobs` is in the database and in no model: `nox -s db_revision -- -m "..."` to drop it and '
        "`nox -s db_init`, or `nox -s db_reset`"
    )


def test_check_tells_the_same_to_a_program(configured: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    change(configured, "CREATE TABLE old_jobs (id int)")

    told = json.loads(told_by_check(capsys, "--json"))

    assert told["agree"] is False
    [compared] = told["compared"]
    assert (compared["revision"], compared["head"]) == (migrations.head(), migrations.head())
    assert compared["differences"] == [
        {
            "table": "old_jobs",
            "kind": "table",
            "name": "old_jobs",
            "what": "extra",
            "expected": {},
            "actual": {},
            "sentence": "table `old_jobs` is in the database and in no model",
            "by_hand": ["DROP TABLE old_jobs"],
        }
    ]


def test_check_of_a_database_that_is_behind_or_unknown_says_that_first(
    configured: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    with configured.begin() as connection:
        migrations.downgrade(connection, "87abf947398d")
    assert "behind: `nox -s db_init` brings it along. As it is now:" in told_by_check(capsys)
    assert migrations.behind("87abf947398d") == len(migrations.known()) - 1

    change(configured, "UPDATE alembic_version SET version_num = 'from_the_future'")
    assert "is at revision from_the_future, which this code does not know" in told_by_check(capsys)

    change(configured, "UPDATE alembic_version SET version_num = '87abf947398d'")
    with configured.begin() as connection:
        migrations.downgrade(connection, "base")
    assert "has no schema yet: `nox -s db_init` makes it." in told_by_check(capsys)


@pytest.fixture
def reader() -> Iterator[Engine]:
    """A role that may read where the schema stands, and nothing else."""
    with start_ephemeral() as server:
        administrator = connect(sqlalchemy_url(server.url))
        init_db(administrator)
        change(
            administrator,
            "CREATE ROLE reader LOGIN PASSWORD 'reader'",
            "GRANT SELECT ON alembic_version TO reader",
        )
        reader = connect(administrator.url.set(username="reader", password="reader"))
        yield reader
        reader.dispose()
        administrator.dispose()


def test_role_that_may_make_no_schema_is_told_so_and_keeps_no_start_from_its_work(reader: Engine) -> None:
    with pytest.raises(UserError) as caught:
        check_db.check_database(reader)

    assert "permission denied for database postgres" in str(caught.value)
    assert str(caught.value).endswith(
        "\nLet the role make one: `GRANT CREATE ON DATABASE postgres TO reader`."
    )
    assert told_at_start(reader) == []


def test_database_that_takes_no_writes_is_told_so_in_two_lines(engine: Engine) -> None:
    """As a standby, which has what its primary has."""
    change(engine, f'ALTER DATABASE "{engine.url.database}" SET default_transaction_read_only = on')
    engine.dispose()

    with pytest.raises(UserError, match="in a read-only transaction") as caught:
        check_db.check_database(engine)

    assert str(caught.value).endswith("\nCompare the server that it is a copy of, which takes writes.")


def test_whole_check_compares_the_migrations_and_the_database(
    configured: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    check.main([])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "The migrations are as the models say."
    assert second.endswith("is as the models say.")

    change(configured, "CREATE TABLE old_jobs (id int)")
    with pytest.raises(SystemExit) as caught:
        check.main(["--json"])

    told = json.loads(capsys.readouterr().out)
    assert caught.value.code == 1
    assert [each["agrees"] for each in told["compared"]] == [True, False]
    assert [each["of"].split()[1] for each in told["compared"]] == ["migrations", "database"]


def test_whole_check_leaves_the_database_out_of_it_on_request(
    configured: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    change(configured, "CREATE TABLE old_jobs (id int)")

    check.main(["--ephemeral"])

    assert capsys.readouterr().out == "The migrations are as the models say.\n"
