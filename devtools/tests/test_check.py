"""The reports about differences: at a start in development, and by `db_check` as text and as JSON."""

import json
import secrets
import time

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from backend import migrations
from backend.config import Settings, load_settings
from backend.database import connect, schema_state
from backend.main import create_app
from backend.migrations.catalog import Thing
from backend.migrations.drift import Difference
from backend.startup import report_drift
from backend.tests.support import execute
from devtools.migrations import check
from devtools.migrations.check import Comparison, compare, lines


def settings_for(engine: Engine, **values: object) -> Settings:
    url = engine.url.render_as_string(hide_password=False)
    return load_settings(_env_file=None, database_url=url, **values)


def said_at_start(engine: Engine) -> list[str]:
    lines: list[str] = []
    report_drift(engine, report=lines.append)
    return lines


def test_start_in_development_logs_differences_in_two_lines(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    execute(
        engine, *(f"CREATE TABLE old_{name} (id int)" for name in "abc"), "ALTER TABLE users ADD nick text"
    )

    with TestClient(create_app(settings_for(engine), engine=engine)):
        deadline = time.monotonic() + 10
        while len(caplog.messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)

    assert caplog.messages == [
        (
            f"The database {engine.url.host}:{engine.url.port}/{engine.url.database} differs from the models: "
            "table `old_a`, table `old_b`, table `old_c` and 1 more."
        ),
        (
            "`nox -s db_check` shows how. `nox -s db_revision` drafts what the migrations lack; "
            "`nox -s db_reset` creates the schema again."
        ),
    ]


def test_start_without_differences_reports_nothing(engine: Engine) -> None:
    assert said_at_start(engine) == []


@pytest.mark.parametrize("environment", ["test", "production"])
def test_start_elsewhere_does_not_compare(
    environment: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Engine] = []
    monkeypatch.setattr("backend.main.report_drift", compared.append)

    with TestClient(create_app(settings_for(engine, app_env=environment, api_token="x" * 32), engine=engine)):
        pass

    assert compared == []


def test_role_without_the_privilege_to_create_schemas_does_not_stop_a_start(engine: Engine) -> None:
    role = f"reader_{secrets.token_hex(4)}"
    execute(
        engine, f"CREATE ROLE {role} LOGIN PASSWORD 'reader'", f"GRANT SELECT ON alembic_version TO {role}"
    )
    reader = connect(engine.url.set(username=role, password="reader"))
    try:
        assert said_at_start(reader) == []
    finally:
        reader.dispose()
        execute(engine, f"REVOKE ALL ON alembic_version FROM {role}", f"DROP ROLE {role}")


def said(of: Comparison) -> list[str]:
    return [line.strip() for line in lines(of)]


def test_check_reports_each_table_with_cures(engine: Engine) -> None:
    assert said(compare(engine, "the database x")) == ["The database x agrees with the models."]

    execute(engine, "CREATE TABLE old_jobs (id int)", "ALTER TABLE users DROP CONSTRAINT ck_users_role")

    assert said(compare(engine, "the database x")) == [
        "The database x and the models differ in 2 places:",
        "old_jobs",
        (
            "table `old_jobs` is in the database and not in the models: add it to the models or drop it, or, if it is "
            "not yours, list it in `ignored_tables` of the models."
        ),
        "users",
        (
            "CHECK `ck_users_role` is in the models and not in the database: correct it by hand in `nox -s db_shell`; "
            "`-- --json` shows its definition."
        ),
    ]


def test_difference_that_the_migrations_have_too_needs_a_migration(engine: Engine) -> None:
    """An example is a table whose model was removed."""
    table = Difference(Thing("old_jobs", "table", "old_jobs"), "extra", {}, {})
    with engine.connect() as connection:
        state = schema_state(connection)

    assert said(Comparison("the migrations", state, [table]))[2] == (
        'table `old_jobs` is in the migrations and not in the models: `nox -s db_revision -- -m "..."` to drop it.'
    )
    assert said(Comparison("the database x", state, [table], in_migrations=(table,)))[2] == (
        'table `old_jobs` is in the database and not in the models: `nox -s db_revision -- -m "..."` to drop it, then '
        "`nox -s db_init`."
    )


def test_database_that_is_behind_ahead_or_empty_is_reported_in_one_line(engine: Engine) -> None:
    with engine.begin() as connection:
        migrations.downgrade(connection, "87abf947398d")
    behind = said(compare(engine, "the database x"))
    assert behind[0] == (
        f"The database x is behind, at revision 87abf947398d: `nox -s db_init` brings it to {migrations.head()}."
    )
    assert behind[3].endswith("is in the models and not in the database: `nox -s db_init` first.")

    execute(engine, "UPDATE alembic_version SET version_num = 'from_the_future'")
    assert "is at revision from_the_future, which this code does not know" in said(compare(engine, "x"))[0]

    execute(engine, "DELETE FROM alembic_version")
    assert said(compare(engine, "the database x")) == [
        "The database x has no schema yet: `nox -s db_init` creates it."
    ]


def test_command_compares_the_migrations_and_the_database(
    engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    execute(engine, "CREATE TABLE old_jobs (id int)")

    code = check.main(["--json"])

    found = json.loads(capsys.readouterr().out)
    assert (code, found["agree"]) == (1, False)
    of_migrations, of_database = found["compared"]
    assert of_migrations["differences"] == []
    assert of_database["state"] == {"current": migrations.head(), "head": migrations.head()}
    assert of_database["differences"] == [
        {"thing": ["old_jobs", "table", "old_jobs"], "what": "extra", "expected": {}, "actual": {}}
    ]
