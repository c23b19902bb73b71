"""One function per model: each makes and flushes a valid row, and accepts every column as an argument."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from backend.models.models import (
    Base,
    Company,
    ConnectionStatus,
    Environment,
    GrantType,
    JobQueue,
    ProcoreConnection,
    UsageLog,
    User,
    UserSettings,
)

Row = TypeVar("Row", bound=Base)

_numbers = count(1)


def make_company(session: Session, **values: Any) -> Company:
    return _flushed(session, Company(**{"name": f"Company {next(_numbers)}", **values}))


def make_user(session: Session, **values: Any) -> User:
    if "company_id" not in values:
        values["company_id"] = make_company(session).id
    return _flushed(session, User(**{"email": f"user{next(_numbers)}@example.com", **values}))


def make_procore_connection(session: Session, **values: Any) -> ProcoreConnection:
    if "company_id" not in values:
        values["company_id"] = make_company(session).id
    now = datetime.now(UTC)
    defaults = {
        "environment": Environment.SANDBOX,
        "grant_type": GrantType.AUTHORIZATION_CODE,
        "procore_company_id": next(_numbers),
        "access_token": "ciphertext",
        "token_issued_at": now,
        "expires_at": now + timedelta(seconds=5400),
        "status": ConnectionStatus.ACTIVE,
    }
    return _flushed(session, ProcoreConnection(**{**defaults, **values}))


def make_job(session: Session, **values: Any) -> JobQueue:
    if "company_id" not in values:
        values["company_id"] = make_company(session).id
    return _flushed(session, JobQueue(**{"job_type": "sync_projects", **values}))


def make_usage_log(session: Session, **values: Any) -> UsageLog:
    if "company_id" not in values:
        values["company_id"] = make_company(session).id
    return _flushed(session, UsageLog(**{"action": "project.read", **values}))


def make_user_settings(session: Session, **values: Any) -> UserSettings:
    if "user_id" not in values:
        values["user_id"] = make_user(session).id
    return _flushed(session, UserSettings(**values))


def _flushed(session: Session, row: Row) -> Row:
    session.add(row)
    session.flush()
    return row
