"""What must be refused: naive datetimes and the like by our code, and by PostgreSQL what clients could not read."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.multirange import Multirange, TimestamptzMultirange
from psycopg.types.range import Range, TimestamptzRange
from sqlalchemy import Connection, select
from sqlalchemy.exc import StatementError

from backend.models.models import Base
from backend.utc import UtcDateTime
from devtools.utc_check.cases import IN_RANGE, OUT_OF_RANGE, REFUSED_DATETIMES, REFUSED_OTHERS, Value
from devtools.utc_check.crossing import FAULTS
from devtools.utc_check.paths import WRITES, Write, driver, is_utc
from devtools.utc_check.proof_report import Report
from devtools.utc_check.subjects import Row, Subject

_NOW = datetime(2024, 1, 1, tzinfo=UTC)


def _comparison(connection: Connection, subject: Subject, rows: list[Row]) -> None:
    name = subject.names[0]
    connection.execute(select(subject.key).where(subject.table.c[name] > rows[0][name]))


def _parameter(place: str, wrap: Callable[[Any], object]) -> Write:
    def execute(connection: Connection, subject: Subject, rows: list[Row]) -> None:
        driver(connection).execute(f"SELECT {place}".encode(), [wrap(rows[0][subject.names[0]])])

    return execute


def _copy_of_timestamps(connection: Connection, subject: Subject, rows: list[Row]) -> None:
    # In binary COPY the bytes of a timestamp are those of a timestamptz.
    raw = driver(connection)
    raw.execute("CREATE TEMPORARY TABLE moments (at timestamptz) ON COMMIT DROP")
    with raw.cursor() as cursor, cursor.copy("COPY moments FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["timestamp"])
        copy.write_row([rows[0][subject.names[0]]])


# With these the type of the column is known, so dates and texts are refused too. The others leave them to PostgreSQL.
TYPED_ENTRIES: dict[str, Write] = {
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


def check_refusals(subject: Subject, report: Report) -> None:
    """Try every value at every entry."""
    for entry in ENTRIES:
        values = {**REFUSED_DATETIMES, **(REFUSED_OTHERS if entry in TYPED_ENTRIES else {})}
        for name, value in values.items() if report.wants(f"refused/{entry}") else ():
            wrong = _try(subject, entry, value)
            report.check(f"refused/{entry}", subject.table.name, name, ok=wrong is None, seen=wrong)


def check_attributes(values: list[Value], report: Report) -> None:
    """Set each attribute of every model: it must be in UTC at once, or the error must name the column."""
    for mapper in Base.registry.mappers:
        for column in mapper.columns:
            if not isinstance(column.type, UtcDateTime):
                continue
            for value in values:
                seen = getattr(mapper.class_(**{column.name: value.held}), column.name)
                ok = is_utc(seen, value.microseconds)
                report.check("attribute/converted", column, value, ok=ok, seen=seen)
            for name, refused in (REFUSED_DATETIMES | REFUSED_OTHERS).items():
                seen = _set(mapper.class_, column.name, refused)
                report.check("attribute/refused", column, name, ok=seen.startswith(f"{column}: "), seen=seen)


def _set(model: type[Any], name: str, value: object) -> str:
    try:
        model(**{name: value})
    except (TypeError, ValueError) as error:
        return str(error)
    return "it was accepted"


def _try(subject: Subject, entry: str, value: object) -> str | None:
    """Return None if our code refused the value, else what happened. Everything is rolled back."""
    with subject.target.engine.connect() as connection:
        connection.begin()
        try:
            ENTRIES[entry](connection, subject, [subject.row(value)])
        except FAULTS as error:
            reason = error.orig if isinstance(error, StatementError) and error.orig else error
            if isinstance(reason, psycopg.Error) and reason.sqlstate is not None:
                return f"it reached PostgreSQL: {reason.sqlstate} {reason}"
            return None
        return "it was accepted"


def check_ranges(subject: Subject, report: Report) -> None:
    """Insert what some client could not read, in SQL."""
    table, row = subject.table.name, subject.row(IN_RANGE)
    for name in subject.names:
        for value in OUT_OF_RANGE if report.wants(f"range/{table}.{name}") else ():
            seen = _execute(subject, subject.insert(row, "%s"), row | {name: value})
            ok = seen == f"ck_{table}_{name}_range"
            report.check(f"range/{table}.{name}", "CHECK", value, ok=ok, seen=seen)


def check_trigger(subject: Subject, report: Report) -> None:
    """Change a company in SQL: created_at must stay, and updated_at increase."""
    path, table, last = f"trigger/{subject.table.name}", subject.table.name, subject.last_key()
    update = f"UPDATE {subject.full_name} SET {{}} WHERE {subject.key.name} > {last}"
    with subject.target.plain.transaction(force_rollback=True):
        _execute(subject, subject.insert(subject.fixed, "%s"), subject.fixed)
        ((_, *before),) = subject.stored(last)
        seen = _execute(subject, update.format("created_at = %s"), {"created_at": IN_RANGE})
        ok = seen == f"ck_{table}_created_at_unchanged"
        report.check(path, table, "created_at was set", ok=ok, seen=seen)
        _execute(subject, update.format("name = %s"), {"name": "Other"})
        ((_, *after),) = subject.stored(last)
        is_later = [new > old for new, old in zip(after, before, strict=True)]
        ok = is_later == [name == "updated_at" for name in subject.names]
        report.check(path, table, "the row was changed", ok=ok, seen=f"{before}, {after}")


def _execute(subject: Subject, statement: str, values: Row) -> str:
    """Return the name of the CHECK that refused the statement, another error, or that it was accepted."""
    try:
        with subject.target.plain.transaction():
            subject.target.plain.execute(statement.encode(), list(values.values()))
    except psycopg.errors.CheckViolation as error:
        return str(error.diag.constraint_name)
    except psycopg.Error as error:
        return f"{error.sqlstate} {error}"
    return "it was accepted"
