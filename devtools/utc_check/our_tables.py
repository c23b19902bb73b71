"""The six tables as subjects of the proof: what else their rows need, and where the API shows them.

Two of them meet every zone: one that the API shows, and one whose timestamps change. The others have the same columns.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any

from sqlalchemy import Connection, insert

from backend.models.models import Company, JobQueue, ProcoreConnection, UsageLog, User, UserSettings
from devtools.utc_check import Resource, Row, Subject

_numbers = count(1)


def subjects(connection: Connection) -> list[Subject]:
    """Make the company that all rows belong to, and return how the rows of each table are made."""
    company = connection.execute(insert(Company).values(name="Tenant").returning(Company.id)).scalar_one()
    return [*_shown(company), *_kept_inside(company)]


def _shown(company: int) -> list[Subject]:
    """Return the tables that the API shows."""
    users = f"/api/v1/companies/{company}/users"

    def new_user() -> Row:
        return {"company_id": company, "email": f"user{next(_numbers)}@example.com", "is_active": True}

    def new_users(connection: Connection, number: int) -> list[int]:
        rows = [new_user() for _ in range(number)]
        return list(connection.scalars(insert(User).returning(User.id, sort_by_parameter_order=True), rows))

    return [
        Subject(
            Company,
            lambda _, number: [
                {"name": f"Company {next(_numbers)}", "is_active": True} for _ in range(number)
            ],
            change={"is_active": False},
            in_every_zone=True,
            resource=Resource(
                "/api/v1/companies",
                create=lambda _: ("/api/v1/companies", {"name": f"Company {next(_numbers)}"}),
                change=lambda item: (f"/api/v1/companies/{item['id']}", {"is_active": False}),
            ),
        ),
        Subject(
            User,
            lambda _, number: [new_user() for _ in range(number)],
            change={"is_active": False},
            resource=Resource(
                users,
                create=lambda _: (users, {"email": f"user{next(_numbers)}@example.com"}),
                change=lambda item: (f"{users}/{item['id']}", {"is_active": False}),
            ),
        ),
        Subject(
            UserSettings,
            lambda connection, number: [
                {"user_id": user, "email_notifications": True} for user in new_users(connection, number)
            ],
            change={"email_notifications": False},
            resource=Resource(
                f"/api/v1/companies/{company}/user-settings",
                create=lambda connection: (f"{users}/{new_users(connection, 1)[0]}/settings", {}),
                change=lambda item: (f"{users}/{item['user_id']}/settings", _settings_change(item)),
            ),
        ),
    ]


def _kept_inside(company: int) -> list[Subject]:
    """Return the tables that the API does not show."""
    return [
        Subject(
            ProcoreConnection,
            # Of revoked ones a company may have any number.
            lambda _, number: [
                {
                    "company_id": company,
                    "environment": "sandbox",
                    "grant_type": "client_credentials",
                    "procore_company_id": next(_numbers),
                    "status": "revoked",
                }
                for _ in range(number)
            ],
            change={"procore_user_id": 1},
        ),
        Subject(
            JobQueue,
            # One that has ended has all of its timestamps.
            lambda _, number: [
                {"company_id": company, "job_type": "proof", "status": "succeeded"} for _ in range(number)
            ],
            in_every_zone=True,
        ),
        Subject(
            UsageLog, lambda _, number: [{"company_id": company, "action": "proof"} for _ in range(number)]
        ),
    ]


def _settings_change(item: Mapping[str, Any]) -> Row:
    return {"version": item["version"], "email_notifications": False}
