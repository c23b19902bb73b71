"""The checks that are not round trips: sessions, values that must be refused, and the types of columns."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.multirange import Multirange, TimestamptzMultirange
from psycopg.types.range import Range, TimestamptzRange
from sqlalchemy import Connection, Engine, select, text

from backend.models.models import Base
from backend.utc import lint_catalog, lint_metadata
from devtools.utc_check.cases import IN_RANGE, OUT_OF_RANGE, REFUSED_DATETIMES, REFUSED_OTHERS
from devtools.utc_check.proof_report import Report
from devtools.utc_check.sandbox_schema import Row, Subject, Target
from devtools.utc_check.writers_and_readers import WRITES, Write, driver

PINNED = ("UTC", "ISO, MDY")
# SQL that depends on the session's zone. In UTC every condition is true.
FOLLOWS_THE_ZONE = text("""
SELECT (extract(epoch FROM timestamptz '2024-07-01 00:00:00') * 1000000)::int8 = 1719792000000000
   AND (timestamptz '2024-06-30 23:59:59.999999+00')::date = date '2024-06-30'
   AND extract(epoch FROM date_trunc('day', timestamptz '2024-11-03 23:30:00+00')) = 1730592000
   AND extract(epoch FROM timestamptz '2024-11-02 12:00:00+00' + interval '1 day') = 1730635200
   AND to_jsonb(timestamptz '2024-07-01 00:00:00+00') = '"2024-07-01T00:00:00+00:00"'
""")
_NOW = datetime(2024, 1, 1, tzinfo=UTC)


def settings(raw: Any) -> tuple[str, str]:  # noqa: ANN401 - psycopg's, whatever its rows are
    zone, style = (raw.execute(f"SHOW {name}".encode()).fetchone()[0] for name in ("timezone", "datestyle"))
    return zone, style


def check_sessions(target: Target, new: Engine, report: Report) -> None:
    """Check a session of an engine that has no connection yet: at first, after a rollback, and after committed SETs."""

    def check(path: str, connection: Connection) -> None:
        seen = settings(driver(connection))
        report.check(f"session/{path}", "the session", target.zone, ok=seen == PINNED, seen=", ".join(seen))

    # The rollbacks of a pool undo a SET, unless it was committed.
    with new.connect() as connection:
        check("new", connection)
        connection.begin().rollback()
        check("rolled-back", connection)
        ok = connection.scalar(FOLLOWS_THE_ZONE) is True
        report.check("session/sql", "dates, days and JSON in SQL", target.zone, ok=ok, seen="another zone's")
    for path, leak in (
        ("leaked-zone", f"TIME ZONE '{target.zone}'"),
        ("leaked-style", "datestyle = 'SQL, DMY'"),
    ):
        with new.begin() as connection:
            connection.exec_driver_sql(f"SET {leak}")
        with new.connect() as connection:
            check(path, connection)
    # If this session were in UTC too, the checks above would have proved nothing.
    seen = settings(target.plain)
    ok = seen[0] == target.zone and not seen[1].startswith("ISO")
    report.check("session/unpinned", "a session that nobody pins", target.zone, ok=ok, seen=", ".join(seen))


def _attribute(_connection: Connection, subject: Subject, rows: list[Row]) -> None:
    subject.model(**rows[0])


def _comparison(connection: Connection, subject: Subject, rows: list[Row]) -> None:
    name = subject.names[0]
    connection.execute(select(subject.key).where(subject.table.c[name] > rows[0][name]))


def _parameter(place: str, wrap: Callable[[Any], object]) -> Write:
    def execute(connection: Connection, subject: Subject, rows: list[Row]) -> None:
        driver(connection).execute(f"SELECT {place}".encode(), [wrap(rows[0][subject.names[0]])])

    return execute


# These entries know the type of the column, so they refuse dates and texts too. The others leave them to PostgreSQL.
TYPED_ENTRIES: dict[str, Write] = {
    "attribute": _attribute,
    "comparison": _comparison,
    **{name: WRITES[name] for name in ("orm-bulk", "core", "copy", "binary-copy")},
    "range": _parameter("%t", lambda at: TimestamptzRange(at, None)),
    "binary-range": _parameter("%b", lambda at: TimestamptzRange(_NOW, at)),
}
ENTRIES: dict[str, Write] = TYPED_ENTRIES | {
    **{name: WRITES[name] for name in ("text", "cursor", "binary-cursor")},
    "array": _parameter("%s", lambda at: [at]),
    "mixed-array": _parameter("%b", lambda at: [_NOW, at]),  # psycopg chooses by the first value
    "untyped-range": _parameter("%s", lambda at: Range(at, None)),
    "multirange": _parameter("%s", lambda at: Multirange([Range(at, None)])),
    "binary-multirange": _parameter("%b", lambda at: TimestamptzMultirange([Range(_NOW, at)])),
}


def check_refusals(subject: Subject, report: Report) -> None:
    """Try every value at every entry."""
    for entry in ENTRIES:
        values = {**REFUSED_DATETIMES, **(REFUSED_OTHERS if entry in TYPED_ENTRIES else {})}
        for name, value in values.items() if report.wants(f"refused/{entry}") else ():
            wrong = _try(subject, entry, value)
            report.check(f"refused/{entry}", subject.table.name, name, ok=wrong is None, seen=wrong)


def _try(subject: Subject, entry: str, value: object) -> str | None:
    """Return None if our code refused the value, or else what happened. Everything is rolled back."""
    with subject.target.engine.connect() as connection:
        connection.begin()
        try:
            ENTRIES[entry](connection, subject, [subject.row(value)])
        except Exception as error:  # noqa: BLE001 - as in `Report.continued`
            reason = getattr(error, "orig", None) or error
            return f"it reached PostgreSQL: {reason}" if getattr(reason, "sqlstate", None) else None
        return "it was accepted"


def check_ranges(subject: Subject, report: Report) -> None:
    """Insert values that some client could not read, with a plain client."""
    table, plain, row = subject.table.name, subject.target.plain, subject.row(IN_RANGE)
    for name in subject.names:
        for value in OUT_OF_RANGE if report.wants(f"range/{table}.{name}") else ():
            seen: object = "it was accepted"
            try:
                with plain.transaction():
                    plain.execute(subject.insert(row, "%s").encode(), [*(row | {name: value}).values()])
            except psycopg.Error as error:
                seen = error.diag.constraint_name or error
            ok = seen == f"ck_{table}_{name}_range"
            report.check(f"range/{table}.{name}", "CHECK", value, ok=ok, seen=seen)


def check_columns(connection: Connection, schema: str, report: Report) -> None:
    """Lint the models, and the tables that the migrations have created."""
    models, tables = lint_metadata(Base.metadata), lint_catalog(connection, schema)
    for path, found in (("lint/models", models), ("lint/schema", tables)):
        report.check(path, "all columns", "their types", ok=not found, seen="; ".join(map(str, found)))
