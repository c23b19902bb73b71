"""A draft brings about whatever changed in the models, and takes it back; what hurts on a live table is said."""

import re
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, MetaData, Table

from backend.migrations import catalog
from backend.migrations.drift import differences
from backend.utc import KEEP_TIMESTAMPS_FUNCTION, UtcDateTime, range_condition
from devtools.migrations.drafting import Draft, draft

from .changing import copied_models, take


def without_constraint(table: Table, name: str) -> None:
    [found] = [each for each in table.constraints if each.name == name]
    table.constraints.remove(found)


def add_column(models: MetaData) -> None:
    models.tables["companies"].append_column(sa.Column("nickname", sa.Text))


def add_timestamp(models: MetaData) -> None:
    models.tables["companies"].append_column(sa.Column("seen_at", UtcDateTime))
    models.tables["companies"].append_constraint(
        sa.CheckConstraint(range_condition("seen_at"), name="seen_at_range")
    )


def rename_column(models: MetaData) -> None:
    """As Alembic sees it: one column went, and another came."""
    old = models.tables["companies"]
    old.c.is_active.name = "active"
    parts = [*old.columns, *(each for each in old.constraints if isinstance(each, sa.CheckConstraint))]
    models.remove(old)
    Table("companies", models, *(part._copy() for part in parts))  # noqa: SLF001  as to_metadata does it


def rename_table(models: MetaData) -> None:
    models.tables["user_settings"].to_metadata(models, name="preferences")
    models.remove(models.tables["user_settings"])


def change_enumeration(models: MetaData) -> None:
    table = models.tables["users"]
    without_constraint(table, "ck_users_role")
    table.append_constraint(sa.CheckConstraint("role IN ('owner', 'admin', 'member', 'guest')", name="role"))


def drop_check(models: MetaData) -> None:
    without_constraint(models.tables["companies"], "ck_companies_name_trimmed")


def add_check_that_looks_like_parameters(models: MetaData) -> None:
    models.tables["companies"].append_constraint(
        sa.CheckConstraint(r"name NOT LIKE '%\:x%' AND name <> '100%'", name="odd")
    )


def add_table_that_keeps_its_timestamps(models: MetaData) -> None:
    Table(
        "notes",
        models,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("company_id", sa.ForeignKey("companies.id"), index=True, nullable=False),
        sa.Column("body", sa.Text, sa.CheckConstraint("body <> ''", name="body_full")),
        sa.Column("created_at", UtcDateTime, server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("body NOT LIKE '100%'", name="body_odd"),
        sa.Column("updated_at", UtcDateTime, server_default=sa.func.now(), nullable=False),
    )


def drop_table(models: MetaData) -> None:
    models.remove(models.tables["user_settings"])


def drop_trigger(models: MetaData) -> None:
    models.info["unkept"] = ("companies",)


def change_function(models: MetaData) -> None:
    models.info["function"] = KEEP_TIMESTAMPS_FUNCTION.replace("1 microsecond", "2 microseconds")


def change_storage(models: MetaData) -> None:
    models.tables["job_queue"].dialect_options["postgresql"]["with"] = {"fillfactor": 80}
    models.tables["users"].dialect_options["postgresql"]["with"] = {"fillfactor": 90}


def change_predicate(models: MetaData) -> None:
    table = models.tables["job_queue"]
    [index] = [each for each in table.indexes if each.name == "ix_job_queue_leases"]
    table.indexes.remove(index)
    sa.Index(index.name, table.c.lease_expires_at, postgresql_where=sa.text("status <> 'queued'"))


def change_type(models: MetaData) -> None:
    models.tables["usage_logs"].c.quantity.type = sa.Numeric()


def change_nullability(models: MetaData) -> None:
    models.tables["users"].c.password_hash.nullable = False


def change_default(models: MetaData) -> None:
    models.tables["users"].c.role.server_default = sa.DefaultClause("admin")


def add_index(models: MetaData) -> None:
    sa.Index("ix_users_role", models.tables["users"].c.role)


def add_unique(models: MetaData) -> None:
    models.tables["companies"].append_constraint(sa.UniqueConstraint("name"))


def add_foreign_key(models: MetaData) -> None:
    models.tables["job_queue"].append_constraint(
        sa.ForeignKeyConstraint(["created_by_id"], ["users.id"], name="fk_job_queue_creator")
    )


def change_what_becomes_of_rows(models: MetaData) -> None:
    table = models.tables["user_settings"]
    without_constraint(table, "fk_user_settings_user_id_users")
    table.append_constraint(sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="RESTRICT"))


def comment(models: MetaData) -> None:
    models.tables["users"].comment = "people"
    models.tables["users"].c.email.comment = "100% theirs"


CHANGES: list[Callable[[MetaData], None]] = [
    add_column, add_timestamp, change_enumeration, drop_check, add_check_that_looks_like_parameters,
    add_table_that_keeps_its_timestamps, drop_table, drop_trigger, change_function, change_storage, change_predicate,
    change_type, change_nullability, change_default, add_index, add_unique, add_foreign_key,
    change_what_becomes_of_rows, comment, rename_column,
]  # fmt: skip


# All of them in one draft, but one of a table that another drops.
TOGETHER = [change for change in CHANGES if change is not change_what_becomes_of_rows]


def drafted(engine: Engine, *changes: Callable[[MetaData], None]) -> tuple[Draft, MetaData]:
    models = copied_models()
    for change in changes:
        change(models)
    with engine.connect() as connection:
        found = draft(connection, models)
    assert found is not None
    return found, models


def test_nothing_is_drafted_where_nothing_changed(engine: Engine) -> None:
    with engine.connect() as connection:
        assert draft(connection, copied_models()) is None


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_draft_brings_the_change_about_and_takes_it_back(
    change: Callable[[MetaData], None], engine: Engine
) -> None:
    draft, models = drafted(engine, change)

    assert draft.missing == ()
    with engine.begin() as connection:
        before = catalog.read(connection)
        take(connection, draft.upgrade)
        assert differences(connection, models) == []
        take(connection, draft.downgrade)
        assert catalog.read(connection) == before


def test_all_of_it_at_once(engine: Engine) -> None:
    draft, models = drafted(engine, *TOGETHER)

    assert draft.missing == ()
    with engine.begin() as connection:
        take(connection, draft.upgrade)
        assert differences(connection, models) == []


def test_drafting_leaves_the_schema_as_it_was(engine: Engine) -> None:
    drafted(engine, *TOGETHER)

    with engine.connect() as connection:
        assert differences(connection) == []


def test_draft_names_nothing_of_ours(engine: Engine) -> None:
    """A migration is history: it must mean the same when our types have changed or gone."""
    draft, _ = drafted(engine, *TOGETHER)

    assert "backend" not in draft.upgrade + draft.downgrade
    assert "sa.Column('seen_at', sa.DateTime(timezone=True), nullable=True)" in draft.upgrade


def test_what_no_step_brings_about_is_said_in_the_file_and_to_who_asked(engine: Engine) -> None:
    """Alembic sees no change of a primary key, and a table that becomes UNLOGGED takes a person."""

    def change(models: MetaData) -> None:
        old = models.tables["usage_logs"]
        models.remove(old)
        old.to_metadata(models)
        models.tables["usage_logs"]._prefixes = ["UNLOGGED"]  # noqa: SLF001  the constructor's, which a copy goes without

    draft, _ = drafted(engine, change, add_column)

    [missing] = draft.missing
    assert missing == (
        "usage_logs, table `usage_logs` differs (logging none in what this makes, `UNLOGGED` in what is wanted)"
    )
    first, *_ = draft.upgrade.splitlines()
    assert first.startswith("# To be completed: usage_logs, table `usage_logs` differs")


def test_step_that_postgresql_refuses_is_drafted_and_said(engine: Engine) -> None:
    """No text is cast to a number by itself: the draft says so, and a person adds postgresql_using."""

    def change(models: MetaData) -> None:
        models.tables["job_queue"].c.last_error.type = sa.Integer()

    draft, _ = drafted(engine, change)

    assert "type_=sa.Integer()" in draft.upgrade
    assert draft.missing == (
        (
            'PostgreSQL refused, and what follows was not tried: column "last_error" cannot be cast automatically to '
            "type integer"
        ),
    )


def test_percent_sign_is_written_as_it_is(engine: Engine) -> None:
    """Alembic doubles it, as for a driver, and the CHECK would be another."""
    draft, _ = drafted(engine, add_table_that_keeps_its_timestamps, comment)

    assert "body NOT LIKE '100%'" in draft.upgrade
    assert "'100% theirs'" in draft.upgrade
    assert "%%" not in draft.upgrade
    assert "drop_constraint" not in draft.upgrade


def test_what_the_catalog_says_is_taken_as_it_is(engine: Engine) -> None:
    """What is in the schema and in no model is dropped, and made again on the way back: `:x` is no parameter."""
    with engine.begin() as connection:
        for statement in (
            "ALTER TABLE companies ADD CONSTRAINT ck_companies_odd CHECK (name <> ':x' AND name NOT LIKE '100%')",
            "CREATE FUNCTION odd() RETURNS text LANGUAGE sql AS 'SELECT $$:y 100% %s$$::text'",
        ):
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    draft, models = drafted(engine)

    assert draft.missing == ()
    with engine.begin() as connection:
        before = catalog.read(connection)
        take(connection, draft.upgrade)
        assert differences(connection, models) == []
        take(connection, draft.downgrade)
        assert catalog.read(connection) == before


def said(draft: Draft) -> str:
    return "\n".join(draft.remarks)


def must_have(models: MetaData) -> None:
    models.tables["users"].append_column(sa.Column("title", sa.Text, nullable=False))


def volatile(models: MetaData) -> None:
    models.tables["users"].append_column(
        sa.Column("token", sa.Uuid, server_default=sa.text("gen_random_uuid()"))
    )


def stable(models: MetaData) -> None:
    models.tables["users"].append_column(
        sa.Column("joined", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
    )


def wider(models: MetaData) -> None:
    models.tables["users"].c.email.type = sa.String()


RISKS = {
    add_index: [
        "Keeps writers out of `users` until it is built",
        "    CREATE INDEX CONCURRENTLY ix_users_role ON users USING btree (role);",
    ],
    add_unique: [
        "Keeps everybody out of `companies` while its index is built",
        "    CREATE UNIQUE INDEX CONCURRENTLY uq_companies_name ON companies (name);",
        "    ALTER TABLE companies ADD CONSTRAINT uq_companies_name UNIQUE USING INDEX uq_companies_name",
    ],
    add_foreign_key: [
        "Reads every row of `job_queue`, with writers kept out",
        (
            "    ALTER TABLE job_queue ADD CONSTRAINT fk_job_queue_creator FOREIGN KEY (created_by_id) "
            "REFERENCES users(id) NOT VALID;"
        ),
        "    ALTER TABLE job_queue VALIDATE CONSTRAINT fk_job_queue_creator;",
        "WHERE conname = 'fk_job_queue_creator'",
    ],
    change_enumeration: [
        "Reads every row of `users`",
        "    ALTER TABLE users DROP CONSTRAINT ck_users_role, ADD CONSTRAINT ck_users_role CHECK (role = ANY ",
        "and leave both steps out.",
    ],
    add_timestamp: ["leave it to the release after the one that adds `seen_at`"],
    change_type: ["From bigint to numeric, `usage_logs` and its indexes are written anew"],
    change_nullability: [
        "Fails where `users.password_hash` is null in a row",
        "CHECK (password_hash IS NOT NULL) NOT VALID;",
    ],
    must_have: ["`users.title` is NOT NULL and has no default, so this fails where the table has rows"],
    volatile: ["`users.token` is computed for every row: the table is written anew"],
    drop_table: ["Drops `user_settings` and every row of it"],
}


@pytest.mark.parametrize(
    ("change", "sentences"), RISKS.items(), ids=lambda each: getattr(each, "__name__", "")
)
def test_what_hurts_on_a_live_table_is_said_with_the_safe_way(
    change: Callable[[MetaData], None], sentences: list[str], engine: Engine
) -> None:
    draft, _ = drafted(engine, change)

    for sentence in sentences:
        assert sentence in said(draft)
    assert re.sub(r"\s+|#", "", draft.remarks[0]) in re.sub(r"\s+|#", "", draft.upgrade), (
        "and it stands in the file"
    )


@pytest.mark.parametrize(
    "harmless", [add_column, stable, wider, add_table_that_keeps_its_timestamps, change_default, drop_trigger, comment],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_nothing_is_said_of_what_is_harmless(harmless: Callable[[MetaData], None], engine: Engine) -> None:
    draft, _ = drafted(engine, harmless)

    assert draft.remarks == ()


def test_index_that_was_built_by_hand_before_the_release_is_found_there(engine: Engine) -> None:
    draft, models = drafted(engine, add_index)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CREATE INDEX CONCURRENTLY ix_users_role ON users USING btree (role)"))

    with engine.begin() as connection:
        take(connection, draft.upgrade)
        assert differences(connection, models) == []


def test_rename_is_not_guessed_and_is_hinted(engine: Engine) -> None:
    draft, _ = drafted(engine, rename_column)

    assert "op.drop_column('companies', 'is_active')" in draft.upgrade
    assert '`op.alter_column("companies", "is_active", new_column_name="active")`' in said(draft)


def test_rename_of_a_table_is_hinted(engine: Engine) -> None:
    draft, _ = drafted(engine, rename_table)

    assert '`op.rename_table("user_settings", "preferences")`' in said(draft)
