"""The migrations and the models describe the same schema, and every upgrade can be undone completely."""

import re
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import DateTime, Engine, text
from sqlalchemy.exc import IntegrityError

from backend import migrations
from backend.migrations import catalog
from backend.migrations.drift import differences
from backend.tests.support import run_python


def test_models_and_migrations_make_the_same_schema(engine: Engine) -> None:
    """The comparison uses the catalog, so it includes CHECKs, triggers and functions. Drift fails here."""
    with engine.connect() as connection:
        assert [difference.describe("the migrations") for difference in differences(connection)] == []


def test_upgrade_belongs_to_the_callers_transaction(empty_engine: Engine) -> None:
    with empty_engine.connect() as connection:
        transaction = connection.begin()
        migrations.upgrade(connection)
        transaction.rollback()

        assert migrations.current(connection) is None
        assert catalog.read(connection) == {}


def test_upgrade_prints_nothing_and_leaves_logging_alone(
    empty_engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    with empty_engine.begin() as connection:
        migrations.upgrade(connection)

    assert capfd.readouterr() == ("", "")


def test_timestamp_that_a_migration_makes_timestamptz_keeps_its_time(empty_engine: Engine) -> None:
    """Alembic's draft has no USING, so PostgreSQL reads the old values in the session's zone, which is UTC."""
    name = empty_engine.url.database
    with empty_engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE \"{name}\" SET timezone = 'America/New_York'"))
    empty_engine.dispose()
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE legacy (at timestamp)"))
        connection.execute(text("INSERT INTO legacy VALUES ('2024-11-03 01:30')"))
        operations = Operations(MigrationContext.configure(connection))
        operations.alter_column(
            "legacy", "at", type_=DateTime(timezone=True), existing_type=DateTime(), existing_nullable=True
        )
        stored = connection.scalar(text("SELECT (extract(epoch FROM at) * 1000000)::int8 FROM legacy"))

    assert stored == 1_730_597_400_000_000


def test_instants_beyond_the_range_stop_the_migration_that_bounds_them(engine: Engine) -> None:
    """The rows stay unchanged, and the error names the column's constraint."""
    with engine.begin() as connection:
        migrations.downgrade(connection, "87abf947398d")
        connection.execute(text("INSERT INTO companies (name, created_at) VALUES ('x', 'infinity')"))
    with pytest.raises(IntegrityError, match="ck_companies_created_at_range"), engine.begin() as connection:
        migrations.upgrade(connection)

    with engine.connect() as connection:
        assert migrations.current(connection) == "87abf947398d"


def test_migration_files_begin_with_their_date() -> None:
    versions = Path(migrations.__file__).parent / "versions"
    names = [path.name for path in versions.glob("[!_]*.py")]

    assert names
    assert all(re.fullmatch(r"\d{4}_\d{2}_\d{2}_[a-z0-9_]+\.py", name) for name in names)


def test_alembic_without_a_connection_says_which_command_to_use() -> None:
    code = (
        "from alembic import command, config; from backend import migrations;"
        "command.upgrade(migrations.alembic_config(), 'head')"
    )
    ran = run_python("-c", code)

    assert ran.returncode == 1
    assert ran.stderr.endswith("Migrations need a connection from their caller: use `nox -s db_init`.\n")
