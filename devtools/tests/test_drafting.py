"""A draft makes the changes of the models, undoes them, and makes them again, with rows in the tables."""

import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.exc import DBAPIError

from backend.migrations import catalog
from backend.migrations.catalog import Thing
from backend.migrations.drift import compare, differences
from devtools.migrations.drafting import Draft, draft

from .model_changes import (
    CHANGES,
    Change,
    all_of,
    c,
    check,
    company,
    copied_models,
    ddl,
    fk,
    identity,
    index,
    kind,
    make,
    take,
    things,
    unique,
)  # fmt: skip

# Every change is also tested as a downgrade. Some of these changes are worth drafting in the other direction, too.
BACKWARDS = (
    "every type in new columns", "two tables that refer to each other", "serial becomes identity",
    "view, function, trigger", "partitions",
)  # fmt: skip


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction, which is rolled back, on a database at head that has rows."""
    with engine.connect() as connection:
        connection.execute(sa.text("INSERT INTO companies (name) VALUES ('A'), ('B')"))
        connection.execute(sa.text("INSERT INTO users (company_id, email) VALUES (1, 'a@x'), (1, 'b@x')"))
        yield connection


def models_with(change: Change) -> MetaData:
    models = copied_models()
    change(models)
    return models


def prepare(connection: Connection, change: Change) -> None:
    """Create the schema of these models, with a row in each table that accepts one."""
    quoted = connection.dialect.identifier_preparer.format_table
    if first := draft(connection, models_with(change)):
        take(connection, first.upgrade)
    for table in models_with(change).tables.values():
        if table.name not in copied_models().tables:
            savepoint = connection.begin_nested()
            try:
                connection.execute(sa.text(f"INSERT INTO {quoted(table)} DEFAULT VALUES"))
            except DBAPIError:
                savepoint.rollback()
    # Like rows of an earlier transaction, these have no check left to run.
    connection.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))
    connection.execute(sa.text("SET CONSTRAINTS ALL DEFERRED"))


def drafted(connection: Connection, change: Change) -> Draft:
    found = draft(connection, models_with(change))
    assert found is not None
    return found


def sides() -> Iterator[tuple[str, Change, Change]]:
    for name, (before, after) in CHANGES.items():
        yield name, before, after
        if name in BACKWARDS:
            yield f"{name}, backwards", after, before


@pytest.mark.parametrize(("before", "after"), [pytest.param(*each[1:], id=each[0]) for each in sides()])
def test_change_is_drafted_and_the_file_goes_up_down_and_up_on_rows(
    before: Change, after: Change, connection: Connection
) -> None:
    prepare(connection, before)
    there = catalog.read(connection)

    found = drafted(connection, after)

    assert found.missing == ()
    assert "backend" not in found.upgrade + found.downgrade, "a migration imports nothing of ours"
    take(connection, found.upgrade)
    assert differences(connection, models_with(after)) == []
    above = catalog.read(connection)
    take(connection, found.downgrade)
    assert compare(there, catalog.read(connection)) == []
    take(connection, found.upgrade)
    assert compare(above, catalog.read(connection)) == []


def test_nothing_is_drafted_if_nothing_changed_and_the_schema_stays(connection: Connection) -> None:
    there = catalog.read(connection)

    assert draft(connection, copied_models()) is None
    drafted(connection, things())
    assert catalog.read(connection) == there


def test_common_changes_are_written_as_alembics_operations(connection: Connection) -> None:
    prepare(connection, things(check("name <> ''", name="name"), index("ix_name", "name")))
    found = drafted(
        connection,
        all_of(
            things(c("a", sa.Text, nullable=False, server_default="x"), unique("a")),
            company(c("kind", kind("a", "b"))),
        ),
    )

    assert "op.execute(\"CREATE TYPE company_kind AS ENUM ('a', 'b')\")" in found.upgrade
    assert (
        "op.add_column('companies', sa.Column('kind', postgresql.ENUM('a', 'b', name='company_kind', "
        "create_type=False), nullable=True))" in found.upgrade
    )
    assert (
        "op.add_column('things', sa.Column('a', sa.Text(), server_default='x', nullable=False))"
        in found.upgrade
    )
    assert "op.create_unique_constraint(op.f('uq_things_a'), 'things', ['a'])" in found.upgrade
    assert "op.execute('DROP INDEX ix_name')" in found.upgrade


def test_deferred_checks_of_filled_rows_run_before_the_column_is_made_not_null(
    connection: Connection,
) -> None:
    reference = fk("companies.id", deferrable=True, initially="DEFERRED")
    prepare(connection, things(c("a", sa.BigInteger, reference)))

    found = drafted(connection, things(c("a", sa.BigInteger, reference, nullable=False, server_default="1")))

    assert "DROP CONSTRAINT" not in found.upgrade
    take(connection, found.upgrade)
    assert connection.scalar(sa.text("SELECT a FROM things")) == 1


def test_not_null_column_without_a_default_must_be_completed_by_hand(connection: Connection) -> None:
    found = drafted(connection, company(c("title", sa.Text, nullable=False)))

    assert found.missing == (
        (
            "`companies.title` must not be null and has no default: fill the existing rows, then add "
            "`op.execute('ALTER TABLE companies ALTER COLUMN title SET NOT NULL')`"
        ),
    )
    assert found.upgrade.startswith("# To be completed: `companies.title` must not be null")
    take(connection, found.upgrade)


DOORS = make("doors", c("thing_id", sa.BigInteger, fk("things.id")))


@pytest.mark.parametrize(
    ("before", "after", "rows", "lost"),
    [
        (
            things(c("a", sa.Text, nullable=False)),
            things(),
            "INSERT INTO things (a) VALUES ('x')",
            ("things", "column", "a", "nullability", "NULL"),
        ),
        (
            all_of(things(), DOORS),
            make("doors", c("thing_id", sa.BigInteger)),
            "INSERT INTO doors (thing_id) SELECT id FROM things",
            ("doors", "foreign key", "fk_doors_thing_id_things", "definition", "NOT VALID"),
        ),
        (
            make("keyed", c("code", sa.Text, primary_key=True)),
            make("keyed", c("id", sa.BigInteger, identity(), primary_key=True)),
            "INSERT INTO keyed VALUES ('a'), ('b')",
            ("keyed", "column", "code", "nullability", "NULL"),
        ),
    ],
    ids=("column", "foreign key", "primary key"),
)
def test_downgrade_restores_as_much_as_the_remaining_rows_allow(
    before: Change, after: Change, rows: str, lost: tuple[str, ...], connection: Connection
) -> None:
    prepare(connection, before)
    found = drafted(connection, after)
    connection.execute(sa.text(rows))

    assert found.missing == ()
    take(connection, found.upgrade)
    take(connection, found.downgrade)
    assert catalog.read(connection)[Thing(*lost[:3])][lost[3]].endswith(lost[4])
    take(connection, found.upgrade)


def test_counter_continues_after_the_rows_if_serial_becomes_identity_or_back(connection: Connection) -> None:
    insert = sa.text("INSERT INTO counted DEFAULT VALUES RETURNING n")
    serial, as_identity = CHANGES["serial becomes identity"]
    prepare(connection, serial)
    found = drafted(connection, as_identity)

    take(connection, found.upgrade)
    assert connection.scalar(insert) == 2
    take(connection, found.downgrade)
    assert connection.scalar(insert) == 3
    take(connection, found.upgrade)
    back = drafted(connection, serial)
    take(connection, back.upgrade)
    assert connection.scalar(insert) == 4


def test_change_that_cannot_be_drafted_is_named_and_the_others_are_drafted(connection: Connection) -> None:
    prepare(connection, things(c("at", sa.Integer)))

    found = drafted(connection, lambda m: (things(c("at", sa.DateTime))(m), company(c("nick", sa.Text))(m)))

    [missing] = found.missing
    assert missing == (
        "things, column `at` differs (type `integer` in the draft, `timestamp without time zone` in the "
        'models) (PostgreSQL: column "at" cannot be cast automatically to type timestamp without time zone)'
    )
    take(connection, found.upgrade)
    take(connection, found.downgrade)
    take(connection, found.upgrade)
    assert "nick" in {thing.name for thing in catalog.read(connection)}


def test_values_of_an_enumeration_are_added_removed_and_renamed_as_rows_allow(connection: Connection) -> None:
    prepare(connection, company(c("kind", kind("a", "b"))))

    found = drafted(connection, company(c("kind", kind("b"))))

    assert "USING kind::text::company_kind" in found.upgrade
    assert "# Fails if a row has 'a', which `company_kind` no longer has." in found.upgrade
    renamed = drafted(connection, company(c("kind", kind("a", "z")))).upgrade.splitlines()
    assert "#     op.execute(\"ALTER TYPE company_kind RENAME VALUE 'b' TO 'z'\")" in renamed
    added = drafted(connection, company(c("kind", kind("a", "b", "c, d"), server_default="b"))).upgrade
    assert "ADD VALUE IF NOT EXISTS 'c, d' AFTER 'b'" in added


def test_tables_that_the_models_list_as_ignored_are_left_alone(connection: Connection) -> None:
    for statement in (
        "CREATE TABLE other_jobs (id int)",
        "CREATE SCHEMA queue",
        "CREATE TABLE queue.jobs (id int)",
    ):
        connection.execute(sa.text(statement))
    models = models_with(things())
    models.info["ignored_tables"] = ("other_*", "queue", "queue.*")

    found = draft(connection, models)

    assert found is not None
    assert "other_jobs" not in found.upgrade + found.downgrade
    assert "queue" not in found.upgrade + found.downgrade
    take(connection, found.upgrade)
    assert differences(connection, models) == []


def test_rename_is_not_guessed_but_suggested_in_a_comment(connection: Connection) -> None:
    prepare(connection, things(c("old", sa.Text)))
    found = drafted(connection, things(c("new", sa.Text)))

    assert "op.execute('ALTER TABLE things DROP COLUMN old')" in found.upgrade
    assert '#     op.alter_column("things", "old", new_column_name="new")' in found.upgrade.splitlines()
    found = drafted(connection, make("objects", c("name", sa.Text), c("old", sa.Text)))
    assert '#     op.rename_table("things", "objects")' in found.upgrade.splitlines()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            company(c("token", sa.Uuid, server_default=sa.text("gen_random_uuid()"))),
            "requires a table rewrite",
        ),
        (lambda m: m.remove(m.tables["user_settings"]), "Drops `user_settings` and its data"),
    ],
    ids=("squawk", "drop"),
)
def test_risk_on_a_live_table_is_a_comment_in_the_file(
    change: Change, words: str, connection: Connection
) -> None:
    found = drafted(connection, change)

    assert any(words in remark for remark in found.remarks)
    assert re.sub(r"[\s#]+", "", found.remarks[0]) in re.sub(r"[\s#]+", "", found.upgrade)


def test_harmless_change_has_no_remarks(connection: Connection) -> None:
    found = drafted(
        connection,
        all_of(
            things(c("a", sa.Text, index=True), check("a <> ''", name="a")),
            company(c("nick", sa.Text), c("at", sa.DateTime, server_default=sa.func.now(), nullable=False)),
            ddl("CREATE VIEW named AS SELECT name FROM things"),
        ),
    )

    assert found.remarks == ()


def test_index_that_was_built_by_hand_before_the_release_is_found(connection: Connection) -> None:
    models = models_with(lambda m: sa.Index("ix_users_role", m.tables["users"].c.role))
    found = draft(connection, models)
    assert found is not None
    connection.execute(sa.text("CREATE INDEX ix_users_role ON users (role)"))

    take(connection, found.upgrade)
    assert differences(connection, models) == []
