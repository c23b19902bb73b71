"""What the proof works on: a schema with the ways into it, and the six tables with what their rows need."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

import psycopg
from fastapi.testclient import TestClient
from sqlalchemy import Column, Connection, Engine, Table, insert

from backend.models.models import Company, JobQueue, ProcoreConnection, UsageLog, User, UserSettings
from backend.utc import UtcDateTime

Row = dict[str, Any]
_numbers = count(1)


@dataclass(frozen=True)
class Target:
    """A schema, and the ways into it."""

    schema: str
    zone: str
    """The zone in which sessions start, unless they are pinned."""
    engine: Engine
    """Pinned, as the application's."""
    unpinned: Engine
    """An engine with our models that nobody pinned."""
    plain: psycopg.Connection[Any]
    """A client with nothing of ours, in autocommit. It is also asked what is stored, in whole microseconds."""
    client: TestClient

    def name(self, table: Table) -> str:
        return f"{self.schema}.{table.name}"


@dataclass(frozen=True)
class Subject:
    """A table, and what its rows need besides timestamps."""

    model: type[Any]
    fixed: Row
    unique: dict[str, Callable[[Connection], object]] = field(default_factory=dict)
    """Columns of which every row needs another value. The API, if it creates rows, needs only these."""
    change: Row = field(default_factory=dict)
    listing: str = ""
    """The path of the API that lists the rows."""
    creates: bool = False
    in_every_zone: bool = False
    """Whether to write its rows in every zone and not only in the first: the tables' columns are alike."""

    @cached_property
    def table(self) -> Table:
        table: Table = self.model.__table__
        return table

    @cached_property
    def key(self) -> Column[Any]:
        (key,) = self.table.primary_key
        return key

    @cached_property
    def names(self) -> list[str]:
        """The columns that hold timestamps."""
        return [column.name for column in self.table.c if isinstance(column.type, UtcDateTime)]

    @property
    def changeable(self) -> list[str]:
        return [name for name in self.names if name not in ("created_at", "updated_at")]

    def row(self, connection: Connection, value: object) -> Row:
        """Return a new row with the value in each timestamp."""
        unique = {name: make(connection) for name, make in self.unique.items()}
        return {**self.fixed, **unique, **dict.fromkeys(self.names, value)}


def make_subjects(connection: Connection) -> list[Subject]:
    """Insert the company to which all rows belong, and return the subjects."""
    company = connection.scalars(insert(Company).values(name="Tenant").returning(Company.id)).one()
    api, tenant = "/api/v1/companies", {"company_id": company}
    active: Row = {"is_active": True}

    def text(_connection: Connection) -> str:
        return f"{next(_numbers)}@example.com"

    def user(connection: Connection) -> int:
        return connection.scalars(
            insert(User).values(**tenant, email=text(connection)).returning(User.id)
        ).one()

    sandbox = {"environment": "sandbox", "grant_type": "client_credentials", "status": "revoked"}
    return [
        Subject(Company, active, {"name": text}, {"is_active": False}, api, creates=True, in_every_zone=True),
        Subject(
            User,
            tenant | active,
            {"email": text},
            {"is_active": False},
            f"{api}/{company}/users",
            creates=True,
        ),
        Subject(
            UserSettings,
            {"email_notifications": True},
            {"user_id": user},
            {"email_notifications": False},
            f"{api}/{company}/user-settings",
        ),
        Subject(
            ProcoreConnection,
            tenant | sandbox,
            {"procore_company_id": lambda _: next(_numbers)},
            {"procore_user_id": 1},
        ),
        # A job that has ended may have all of its timestamps.
        Subject(JobQueue, tenant | {"job_type": "proof", "status": "succeeded"}, in_every_zone=True),
        Subject(UsageLog, tenant | {"action": "proof"}),
    ]
