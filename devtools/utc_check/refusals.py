"""Naive datetimes and the like, tried at every entry: none must reach PostgreSQL."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.multirange import Multirange, TimestamptzMultirange
from psycopg.types.range import Range, TimestamptzRange
from sqlalchemy import Connection, select
from sqlalchemy.exc import StatementError

from devtools.utc_check.cases import REFUSED_DATETIMES, REFUSED_OTHERS, Value
from devtools.utc_check.crossing import FAULTS, describe_error
from devtools.utc_check.paths import WRITES, Write, driver, is_utc
from devtools.utc_check.proof_report import Report
from devtools.utc_check.subjects import Row, Subject, Target

_NOW = datetime(2024, 1, 1, tzinfo=UTC)


def _attribute(_connection: Connection, _target: Target, subject: Subject, rows: list[Row]) -> None:
    subject.model(**rows[0])


def _comparison(connection: Connection, _target: Target, subject: Subject, rows: list[Row]) -> None:
    name = subject.names[0]
    connection.execute(select(subject.key).where(subject.table.c[name] > rows[0][name]))


def _parameter(place: str, wrap: Callable[[Any], object]) -> Write:
    def execute(connection: Connection, _target: Target, subject: Subject, rows: list[Row]) -> None:
        driver(connection).execute(f"SELECT {place}".encode(), [wrap(rows[0][subject.names[0]])])

    return execute


def _copy_of_timestamps(connection: Connection, _target: Target, subject: Subject, rows: list[Row]) -> None:
    # In binary COPY the bytes of a timestamp are those of a timestamptz.
    driver(connection).execute("CREATE TEMPORARY TABLE moments (at timestamptz) ON COMMIT DROP")
    with (
        driver(connection).cursor() as cursor,
        cursor.copy("COPY moments FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(["timestamp"])
        copy.write_row([rows[0][subject.names[0]]])


# With these the type of the column is known, so dates and texts are refused too. The others leave them to PostgreSQL.
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
    "copy-of-timestamps": _copy_of_timestamps,
}


def check_refusals(target: Target, subject: Subject, report: Report) -> None:
    """Try every value at every entry."""
    for entry in ENTRIES:
        values = {**REFUSED_DATETIMES, **(REFUSED_OTHERS if entry in TYPED_ENTRIES else {})}
        for name, value in values.items() if report.wants(f"refused/{entry}") else ():
            wrong = _try(target, subject, entry, value)
            report.check(f"refused/{entry}", subject.table.name, name, ok=wrong is None, seen=wrong)


def check_attributes(subject: Subject, values: list[Value], report: Report) -> None:
    """Set datetimes of every zone on the attributes, which must convert them to UTC at once."""
    for value in values if report.wants("converted/attribute") else ():
        new = subject.model(**dict.fromkeys(subject.names, value.held))
        for name in subject.names:
            seen = getattr(new, name)
            report.check("converted/attribute", name, value, ok=is_utc(seen, value.microseconds), seen=seen)


def _try(target: Target, subject: Subject, entry: str, value: object) -> str | None:
    """Return None if our code refused the value, else what happened. Everything is rolled back."""
    with target.engine.connect() as connection:
        connection.begin()
        row = subject.row(connection, value)
        try:
            ENTRIES[entry](connection, target, subject, [row])
        except FAULTS as error:
            reason = error.orig if isinstance(error, StatementError) and error.orig else error
            if isinstance(reason, psycopg.Error) and reason.sqlstate is not None:
                return f"it reached PostgreSQL: {reason.sqlstate} {reason}"
            column = f"{subject.table.name}.{subject.names[0]}"
            if entry == "attribute" and not str(reason).startswith(f"{column}: "):
                return f"the error does not name {column}: {describe_error(reason)}"
            return None
        return "it was accepted"
