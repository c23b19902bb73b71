"""Every constraint of the six tables refuses invalid rows, with its name and SQLSTATE, in plain SQL."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from backend.models.models import Base
from backend.utc import UtcDateTime
from devtools.utc_check.cases import OUT_OF_RANGE

CHECK, UNIQUE, FOREIGN_KEY, NOT_NULL = "23514", "23505", "23503", "23502"
# PostgreSQL 18 has a separate SQLSTATE for RESTRICT.
RESTRICT = {"23001", FOREIGN_KEY}

NOBODY = 999_999
NOW = "2024-01-31T12:00:00Z"
Row = dict[str, object]


@dataclass(frozen=True)
class World:
    """Two companies with a user each, and a valid row for every table."""

    connection: psycopg.Connection[tuple[Any, ...]]
    company: int
    user: int
    stranger: int
    """A user of the other company."""
    rows: dict[str, Row] = field(default_factory=dict)

    def insert(self, table: str, **changes: object) -> int:
        """Insert a valid row with these changes; return its key."""
        row = {**self.rows[table], **{name: self._value(value) for name, value in changes.items()}}
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING {}").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(sql.Placeholder() * len(row)),
            sql.Identifier("user_id" if table == "user_settings" else "id"),
        )
        found = self.connection.execute(statement, list(row.values())).fetchone()
        assert found is not None
        return int(found[0])

    def _value(self, value: object) -> object:
        return self.stranger if value == "stranger" else value


@pytest.fixture
def world(engine: Engine) -> Iterator[World]:
    # Nothing is committed. The connection is psycopg's, so the errors are psycopg's too.
    with closing(engine.raw_connection()) as pooled:
        connection = pooled.driver_connection
        assert isinstance(connection, psycopg.Connection)
        world = World(connection, 0, 0, 0, {"companies": {"name": "Acme"}, "users": {}})
        companies = [world.insert("companies") for _ in range(2)]
        users = []
        for key in companies:
            world.rows["users"] = {"company_id": key, "email": f"user{key}@example.com"}
            users.append(world.insert("users"))
        company = {"company_id": companies[0]}
        connection_row = {
            "environment": "sandbox",
            "grant_type": "authorization_code",
            "procore_company_id": 1,
        }
        rows: dict[str, Row] = {
            "companies": {"name": "Acme"},
            "users": {**company, "email": "new@example.com"},
            "procore_connections": {**company, **connection_row, "status": "active", "access_token": "x"},
            "job_queue": {**company, "job_type": "sync"},
            "usage_logs": {**company, "action": "read"},
            "user_settings": {"user_id": users[0]},
        }
        yield World(connection, companies[0], users[0], users[1], rows)


RUNNING = {"status": "running", "locked_by": "worker", "lease_expires_at": NOW}

CHECKS: list[tuple[str, str, Row]] = [
    ("ck_companies_name_length", "companies", {"name": ""}),
    ("ck_companies_name_trimmed", "companies", {"name": " Acme"}),
    ("ck_users_role", "users", {"role": "Owner"}),
    ("ck_users_email_length", "users", {"email": "x" * 319 + "@x"}),
    ("ck_users_email_trimmed", "users", {"email": "a@example.com "}),
    ("ck_users_email_form", "users", {"email": "somebody"}),
    ("ck_procore_connections_environment", "procore_connections", {"environment": "staging"}),
    ("ck_procore_connections_grant_type", "procore_connections", {"grant_type": "password"}),
    ("ck_procore_connections_status", "procore_connections", {"status": "dead"}),
    ("ck_procore_connections_active_has_token", "procore_connections", {"access_token": None}),
    ("ck_procore_connections_revoked_has_no_token", "procore_connections", {"status": "revoked"}),
    (
        "ck_procore_connections_revoked_has_no_token",
        "procore_connections",
        {"status": "revoked", "access_token": None, "refresh_token": "x"},
    ),
    ("ck_procore_connections_procore_ids_positive", "procore_connections", {"procore_company_id": 0}),
    ("ck_procore_connections_procore_ids_positive", "procore_connections", {"procore_user_id": -1}),
    (
        "ck_procore_connections_rate_limit_remaining_not_negative",
        "procore_connections",
        {"rate_limit_remaining": -1},
    ),
    ("ck_job_queue_status", "job_queue", {"status": "paused"}),
    ("ck_job_queue_job_type_length", "job_queue", {"job_type": ""}),
    ("ck_job_queue_dedupe_key_length", "job_queue", {"dedupe_key": "x" * 201}),
    ("ck_job_queue_idempotency_key_length", "job_queue", {"idempotency_key": ""}),
    ("ck_job_queue_payload_is_object", "job_queue", {"payload": Jsonb([])}),
    ("ck_job_queue_attempts_within_max", "job_queue", {"attempts": 6, "max_attempts": 5}),
    ("ck_job_queue_max_attempts_positive", "job_queue", {"max_attempts": 0}),
    ("ck_job_queue_running_has_lease", "job_queue", {**RUNNING, "locked_by": None}),
    ("ck_job_queue_running_has_lease", "job_queue", {**RUNNING, "lease_expires_at": None}),
    ("ck_job_queue_terminal_has_finished_at", "job_queue", {"status": "succeeded"}),
    ("ck_job_queue_terminal_has_finished_at", "job_queue", {"status": "queued", "finished_at": NOW}),
    ("ck_usage_logs_action_length", "usage_logs", {"action": ""}),
    ("ck_usage_logs_idempotency_key_length", "usage_logs", {"idempotency_key": ""}),
    ("ck_usage_logs_details_is_object", "usage_logs", {"details": Jsonb("text")}),
    ("ck_usage_logs_quantity_not_negative", "usage_logs", {"quantity": -1}),
    ("ck_user_settings_timezone_length", "user_settings", {"timezone": ""}),
    ("ck_user_settings_preferences_is_object", "user_settings", {"preferences": Jsonb([1])}),
]

FOREIGN_KEYS: list[tuple[str, str, Row]] = [
    ("fk_users_company_id_companies", "users", {"company_id": NOBODY}),
    ("fk_procore_connections_company_id_companies", "procore_connections", {"company_id": NOBODY}),
    ("fk_job_queue_company_id_companies", "job_queue", {"company_id": NOBODY}),
    ("fk_usage_logs_company_id_companies", "usage_logs", {"company_id": NOBODY}),
    ("fk_user_settings_user_id_users", "user_settings", {"user_id": NOBODY}),
    (
        "fk_procore_connections_company_id_connected_by_id_users",
        "procore_connections",
        {"connected_by_id": "stranger"},
    ),
    ("fk_job_queue_company_id_created_by_id_users", "job_queue", {"created_by_id": "stranger"}),
    ("fk_usage_logs_company_id_user_id_users", "usage_logs", {"user_id": "stranger"}),
]

# The first row is valid, the second conflicts with it.
UNIQUES: list[tuple[str, str, Row, Row]] = [
    ("uq_users_email_lower", "users", {"email": "One@Example.com"}, {"email": "oNE@eXAMPLE.COM"}),
    (
        "uq_procore_connections_company_id_environment_live",
        "procore_connections",
        {},
        {"procore_company_id": 2},
    ),
    (
        "uq_procore_connections_environment_procore_company_id_live",
        "procore_connections",
        {},
        {"company_id": "another"},
    ),
    (
        "uq_job_queue_company_id_dedupe_key_live",
        "job_queue",
        {"dedupe_key": "k", **RUNNING},
        {"dedupe_key": "k"},
    ),
    (
        "uq_job_queue_company_id_idempotency_key",
        "job_queue",
        {"idempotency_key": "k", "status": "succeeded", "finished_at": NOW},
        {"idempotency_key": "k"},
    ),
    (
        "uq_usage_logs_company_id_idempotency_key",
        "usage_logs",
        {"idempotency_key": "k"},
        {"idempotency_key": "k"},
    ),
    ("pk_user_settings", "user_settings", {}, {}),
]

TIMESTAMPS = [
    (table.name, column.name)
    for table in Base.metadata.sorted_tables
    for column in table.c
    if isinstance(column.type, UtcDateTime)
]

# (company_id, id) is unique because id is. The constraint exists for foreign keys, and no row can violate only it.
IMPLIED = {"uq_users_company_id_id"} | {
    f"pk_{table}" for table in ("companies", "users", "procore_connections", "job_queue", "usage_logs")
}


def assert_refused(error: psycopg.Error, sqlstate: str, constraint: str) -> None:
    assert (sqlstate, constraint) == (error.sqlstate, error.diag.constraint_name)


def test_every_table_accepts_its_valid_row(world: World) -> None:
    """Otherwise the refusals below could have another reason."""
    for table in world.rows:
        world.insert(table)


@pytest.mark.parametrize(("constraint", "table", "changes"), CHECKS)
def test_check_refuses(world: World, constraint: str, table: str, changes: Row) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        world.insert(table, **changes)

    assert_refused(caught.value, CHECK, constraint)


@pytest.mark.parametrize(("table", "column"), TIMESTAMPS)
def test_timestamp_that_not_every_client_can_read_is_refused(world: World, table: str, column: str) -> None:
    for value in OUT_OF_RANGE:
        with pytest.raises(psycopg.errors.CheckViolation) as caught, world.connection.transaction():
            world.insert(table, **{column: value})

        assert_refused(caught.value, CHECK, f"ck_{table}_{column}_range")


@pytest.mark.parametrize(("constraint", "table", "changes"), FOREIGN_KEYS)
def test_foreign_key_refuses(world: World, constraint: str, table: str, changes: Row) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as caught:
        world.insert(table, **changes)

    assert_refused(caught.value, FOREIGN_KEY, constraint)


@pytest.mark.parametrize(("constraint", "table", "first", "second"), UNIQUES)
def test_second_row_is_refused(world: World, constraint: str, table: str, first: Row, second: Row) -> None:
    world.insert(table, **first)
    if second.get("company_id") == "another":
        second = {"company_id": world.insert("companies")}
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        world.insert(table, **second)

    assert_refused(caught.value, UNIQUE, constraint)


def test_every_constraint_has_a_case(world: World) -> None:
    rows = world.connection.execute(
        "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
        " AND contype <> 'n' AND conrelid <> 'alembic_version'::regclass"
        " UNION SELECT indexrelid::regclass::text FROM pg_index WHERE indisunique"
        " AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)"
        " AND indrelid <> 'alembic_version'::regclass"
    ).fetchall()
    tested = {case[0] for case in (*CHECKS, *FOREIGN_KEYS, *UNIQUES)} | IMPLIED
    tested |= {f"ck_{table}_{column}_range" for table, column in TIMESTAMPS}

    assert {str(name) for (name,) in rows} == tested


def test_revoked_connection_allows_a_new_one(world: World) -> None:
    revoked = {"status": "revoked", "access_token": None}
    world.insert("procore_connections", **revoked)
    world.insert("procore_connections", **revoked)
    world.insert("procore_connections")


def test_finished_job_frees_its_dedupe_key(world: World) -> None:
    world.insert("job_queue", dedupe_key="k", status="succeeded", finished_at=NOW)
    world.insert("job_queue", dedupe_key="k")


def test_two_companies_may_use_the_same_keys(world: World) -> None:
    other = world.insert("companies")
    for company in (world.company, other):
        world.insert("job_queue", company_id=company, dedupe_key="k", idempotency_key="k")
        world.insert("usage_logs", company_id=company, idempotency_key="k")


def test_key_chosen_by_the_caller_is_refused(world: World) -> None:
    with pytest.raises(psycopg.errors.GeneratedAlways):
        world.insert("companies", id=7)


@pytest.mark.parametrize(
    ("table", "column"),
    [("procore_connections", "connected_by_id"), ("job_queue", "created_by_id"), ("usage_logs", "user_id")],
)
def test_deleting_a_user_keeps_the_row_and_its_company(world: World, table: str, column: str) -> None:
    key = world.insert(table, **{column: world.user})
    world.connection.execute("DELETE FROM users WHERE id = %s", [world.user])

    query = sql.SQL("SELECT company_id, {} FROM {} WHERE id = %s").format(
        sql.Identifier(column), sql.Identifier(table)
    )
    assert world.connection.execute(query, [key]).fetchone() == (world.company, None)


@pytest.mark.parametrize("table", ["users", "usage_logs"])
def test_company_with_users_or_usage_cannot_be_deleted(world: World, table: str) -> None:
    company = world.insert("companies")
    world.insert(table, company_id=company)
    with pytest.raises(psycopg.errors.IntegrityError) as caught:
        world.connection.execute("DELETE FROM companies WHERE id = %s", [company])

    assert caught.value.diag.constraint_name == f"fk_{table}_company_id_companies"
    assert caught.value.sqlstate in RESTRICT


@pytest.mark.parametrize("table", ["procore_connections", "job_queue"])
def test_deleting_a_company_deletes_its_connections_and_jobs(world: World, table: str) -> None:
    company = world.insert("companies")
    key = world.insert(table, company_id=company)
    world.connection.execute("DELETE FROM companies WHERE id = %s", [company])

    query = sql.SQL("SELECT FROM {} WHERE id = %s").format(sql.Identifier(table))
    assert world.connection.execute(query, [key]).fetchone() is None


def test_deleting_a_user_deletes_the_settings(world: World) -> None:
    world.insert("user_settings")
    world.connection.execute("DELETE FROM users WHERE id = %s", [world.user])

    assert world.connection.execute("SELECT FROM user_settings").fetchone() is None
