"""The ORM reads back what the database sets, and the trigger works for every client."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from backend.models.models import Base, Company, JobQueue, Role, User, UserSettings
from backend.tests import factories

KEPT = [
    factories.make_company,
    factories.make_user,
    factories.make_procore_connection,
    factories.make_user_settings,
]
CHANGES: dict[str, tuple[str, object]] = {
    "companies": ("is_active", False),
    "users": ("is_active", False),
    "procore_connections": ("last_error_code", "invalid_grant"),
    "user_settings": ("email_notifications", False),
}
Make = Callable[[Session], Company]


@pytest.mark.parametrize("make", [*KEPT, factories.make_job, factories.make_usage_log])
def test_new_row_has_one_instant_of_the_databases_clock(session: Session, make: Make) -> None:
    row = make(session)

    now = session.scalar(text("SELECT now()"))
    assert row.created_at == now
    assert row.created_at.tzinfo is UTC
    assert getattr(row, "updated_at", now) == now


@pytest.mark.parametrize("make", KEPT)
def test_each_change_in_one_transaction_moves_updated_at(session: Session, make: Make) -> None:
    row = make(session)
    column, value = CHANGES[row.__tablename__]
    before = getattr(row, column)
    seen = [row.updated_at]
    for change in (value, before, value):
        setattr(row, column, change)
        session.flush()
        # RETURNING has read it, so the attribute needs no further statement.
        seen.append(row.__dict__["updated_at"])

    assert seen == sorted(set(seen))
    assert row.created_at == seen[0]


@pytest.mark.parametrize("make", KEPT)
def test_update_that_changes_nothing_leaves_updated_at(session: Session, make: Make) -> None:
    row = make(session)
    table = Base.metadata.tables[row.__tablename__]
    column = table.c[CHANGES[row.__tablename__][0]]
    before = row.updated_at
    session.execute(update(table).values({column: column, "updated_at": text("now() + interval '1 day'")}))
    session.refresh(row)

    assert row.updated_at == before


@pytest.mark.parametrize("make", KEPT)
def test_created_at_cannot_be_changed(session: Session, make: Make) -> None:
    row = make(session)
    row.created_at -= timedelta(microseconds=1)
    with pytest.raises(IntegrityError) as caught:
        session.flush()

    assert isinstance(caught.value.orig, psycopg.errors.CheckViolation)
    diagnosis = caught.value.orig.diag
    assert diagnosis.constraint_name == f"ck_{row.__tablename__}_created_at_unchanged"
    assert (diagnosis.table_name, diagnosis.column_name) == (row.__tablename__, "created_at")


def test_updated_at_moves_forward_when_the_clock_was_set_back(session: Session) -> None:
    """A row with a time in the future has the same effect as a clock that was set back."""
    future = datetime(9000, 1, 1, tzinfo=UTC)
    company = factories.make_company(session, updated_at=future)
    company.name = "Renamed"
    session.flush()

    assert company.updated_at == future + timedelta(microseconds=1)


def test_upsert_moves_updated_at(session: Session) -> None:
    settings = factories.make_user_settings(session)
    before = settings.updated_at
    statement = insert(UserSettings).values(user_id=settings.user_id, timezone="Asia/Kathmandu", version=1)
    session.execute(
        statement.on_conflict_do_update(index_elements=["user_id"], set_={"timezone": "Asia/Kathmandu"})
    )
    session.refresh(settings)

    assert settings.timezone == "Asia/Kathmandu"
    assert settings.updated_at > before


def test_deleting_a_connections_user_counts_as_a_change(session: Session) -> None:
    user = factories.make_user(session)
    connection = factories.make_procore_connection(
        session, company_id=user.company_id, connected_by_id=user.id
    )
    before = connection.updated_at
    session.delete(user)
    session.flush()
    session.refresh(connection)

    assert connection.connected_by_id is None
    assert connection.updated_at > before


def test_enumeration_is_loaded_as_its_member(session: Session) -> None:
    user = factories.make_user(session, role="admin")
    session.expire(user)

    assert user.role is Role.ADMIN


def test_unknown_member_is_refused_before_anything_is_sent(session: Session) -> None:
    with pytest.raises(StatementError, match="'chief' is not a valid Role"):
        session.execute(select(User).where(User.role == "chief"))


def test_defaults_are_the_databases(session: Session) -> None:
    job, settings = factories.make_job(session), factories.make_user_settings(session)

    assert (job.status, job.priority, job.attempts, job.max_attempts, job.payload) == ("queued", 0, 0, 5, {})
    assert job.run_at == job.created_at
    assert (settings.timezone, settings.email_notifications, settings.preferences) == ("UTC", True, {})


# On a new database, because the planner's choice depends on what was in the tables before.
@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            "SELECT id FROM job_queue WHERE status = 'queued' ORDER BY priority, run_at, id LIMIT 1",
            "ix_job_queue_ready",
        ),
        (
            "SELECT id FROM job_queue WHERE status = 'running' AND lease_expires_at < now()",
            "ix_job_queue_leases",
        ),
        (
            "SELECT id FROM usage_logs WHERE company_id = 1 ORDER BY created_at DESC, id DESC LIMIT 50",
            "ix_usage_logs_company_id_created_at_id",
        ),
        ("SELECT id FROM users WHERE lower(email) = lower('A@example.com')", "uq_users_email_lower"),
    ],
)
def test_index_serves_its_query(postgres_new_database: Callable[[], str], query: str, index: str) -> None:
    # On an empty table every plan is cheap; with these settings the planner uses the index if it can.
    with psycopg.connect(
        postgres_new_database(), options="-c enable_seqscan=off -c enable_bitmapscan=off"
    ) as connection:
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {query}"))

    assert index in plan
    assert "Sort" not in plan


def test_queue_leaves_room_on_its_pages(session: Session) -> None:
    options = session.scalar(text("SELECT reloptions FROM pg_class WHERE oid = 'job_queue'::regclass"))

    assert options == ["fillfactor=70"]
    assert not hasattr(JobQueue, "updated_at")
