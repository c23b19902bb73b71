"""From rows to a database: by COPY, in one transaction, so that it is all there or as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

import psycopg
from sqlalchemy import Connection, Engine, text

from backend.database import alone
from backend.models.models import Company, JobQueue, ProcoreConnection, UsageLog, User, UserSettings
from devtools.seeding import accounts, activity
from devtools.seeding.accounts import Row
from devtools.seeding.plan import Plan

Advance = Callable[[int], None]
"""Is told that so many rows more were sent."""
_STEP = 2000


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[str, ...]
    rows: Callable[[Plan], Iterator[Row]]
    count: int
    """How many rows a unit of scale has."""
    is_large: bool = False
    """Whether its indexes and foreign keys are made once the rows are there."""


_PEOPLE = accounts.PEOPLE
# Each after those that it refers to.
TABLES = (
    Table(Company.__tablename__, accounts.COMPANY_COLUMNS, accounts.companies, len(accounts.SIZES)),
    Table(User.__tablename__, accounts.USER_COLUMNS, accounts.users, _PEOPLE),
    Table(UserSettings.__tablename__, accounts.SETTINGS_COLUMNS, accounts.user_settings, _PEOPLE * 3 // 4),
    Table(
        ProcoreConnection.__tablename__,
        accounts.CONNECTION_COLUMNS,
        accounts.procore_connections,
        accounts.CONNECTIONS,
    ),
    Table(JobQueue.__tablename__, activity.JOB_COLUMNS, activity.job_queue, activity.JOBS, is_large=True),
    Table(
        UsageLog.__tablename__, activity.USAGE_COLUMNS, activity.usage_logs, activity.ENTRIES, is_large=True
    ),
)
NAMES = ", ".join(table.name for table in TABLES)


class NotEmptyError(Exception):
    """There are rows already; `counts` says how many in which table."""

    def __init__(self, counts: dict[str, int]) -> None:
        super().__init__(counts)
        self.counts = counts


def seed(
    engine: Engine, plan: Plan, *, replace: bool = False, lock_timeout: float = 5, advance: Advance
) -> dict[str, int]:
    """Write the rows of a plan and return how many each table has. The schema must be at head.

    It is one transaction, for the end of which all who want to use the tables wait. A lock that is not had within the
    timeout, in seconds, is an OperationalError with SQLSTATE 55P03. Raises NotEmptyError where a table has rows, unless
    they are to be replaced.
    """
    with alone(engine, lock_timeout=lock_timeout) as connection:
        # The strongest at once: a weaker one, raised later, would meet others half-way in a deadlock.
        connection.execute(text(f"LOCK TABLE {NAMES} IN ACCESS EXCLUSIVE MODE"))
        if replace:
            connection.execute(text(f"TRUNCATE {NAMES}"))
        elif counts := count(connection):
            raise NotEmptyError(counts)
        return {table.name: _write(connection, table, plan, advance) for table in TABLES}


def tidy(engine: Engine) -> None:
    """Have the planner's statistics and the visibility map there now, and not when autovacuum comes by."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM (ANALYZE, SKIP_LOCKED) {NAMES}"))


def count(connection: Connection) -> dict[str, int]:
    """Count the rows of the tables that have any."""
    counts = {
        table.name: connection.scalar(text(f"SELECT count(*) FROM {table.name}"))  # noqa: S608  our own names
        for table in TABLES
    }
    return {name: number for name, number in counts.items() if number}


def _write(connection: Connection, table: Table, plan: Plan, advance: Advance) -> int:
    with _bare(connection, table.name) if table.is_large else nullcontext():
        number = _copy(connection, table, plan, advance)
    if table.columns[0] == "id":
        # Unlike setval() it is undone with the rest.
        connection.execute(text(f"ALTER TABLE {table.name} ALTER COLUMN id RESTART WITH {number + 1}"))
    return number


def _copy(connection: Connection, table: Table, plan: Plan, advance: Advance) -> int:
    # The driver's own adaptation, so that what is no instant is refused here as everywhere. As text, for binary takes
    # it longer; the server, which takes longest, does not mind.
    cursor = cast("psycopg.Connection", connection.connection.driver_connection).cursor()
    number = 0
    try:
        with cursor.copy(f"COPY {table.name} ({', '.join(table.columns)}) FROM STDIN") as copy:
            for number, row in enumerate(table.rows(plan), 1):
                copy.write_row(row)
                if number % _STEP == 0:
                    advance(_STEP)
    except psycopg.OperationalError as error:
        connection.invalidate(error)  # there is nothing left that could be rolled back
        raise
    advance(number % _STEP)
    return number


@contextmanager
def _bare(connection: Connection, table: str) -> Iterator[None]:
    """Take a table's foreign keys and indexes away, but for its primary key, and make them anew afterwards.

    With them a million rows take three times as long, and they are checked all the same: see PostgreSQL's page on
    populating a database. They are made by the catalog's own words for them.
    """
    parts = connection.execute(_PARTS, {"table": table}).all()
    for part in parts:
        connection.exec_driver_sql(part.drop, execution_options={"no_parameters": True})
    yield
    for part in reversed(parts):
        connection.exec_driver_sql(part.make, execution_options={"no_parameters": True})


# Foreign keys first: one may need an index that comes after it.
_PARTS = text("""
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS drop,
       format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) AS make,
       CASE contype WHEN 'f' THEN 1 ELSE 2 END AS turn, conname AS name
FROM pg_constraint WHERE conrelid = CAST(:table AS regclass) AND contype IN ('f', 'u', 'x')
UNION ALL
SELECT format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid), 3, indexrelid::regclass::text
FROM pg_index AS i
WHERE indrelid = CAST(:table AS regclass)
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x'))
ORDER BY turn, name
""")
