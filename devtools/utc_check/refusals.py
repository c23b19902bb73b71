"""What is no instant, tried at every door: it must be refused before PostgreSQL hears of it."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.range import Range, TimestamptzRange
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from devtools.utc_check.matrix import FAULTS
from devtools.utc_check.reads import describe, is_instant
from devtools.utc_check.report import Report
from devtools.utc_check.subjects import Round, Row, Subject
from devtools.utc_check.writes import copy_in, raw_connection


class _NoOffset(tzinfo):
    """Present, and still no answer."""

    def utcoffset(self, _value: datetime | None, /) -> timedelta | None:
        return None

    def dst(self, _value: datetime | None, /) -> timedelta | None:
        return None

    def tzname(self, _value: datetime | None, /) -> str | None:
        return None


class _NotATime(datetime):
    """As pandas' NaT: a datetime by its class, whose offset is itself."""

    def utcoffset(self) -> Any:  # noqa: ANN401 - no timedelta
        return self


class _Nanoseconds(datetime):
    """As pandas' Timestamp."""

    nanosecond = 1


NO_INSTANTS: dict[str, datetime] = {
    "naive": datetime(2024, 7, 1, 12),  # noqa: DTZ001 - the mistake that is tried
    "without-offset": datetime(2024, 7, 1, 12, tzinfo=_NoOffset()),
    "not-a-time": _NotATime(2024, 7, 1, 12, tzinfo=UTC),
    "nanoseconds": _Nanoseconds(2024, 7, 1, 12, tzinfo=UTC),
    "before-year-one": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
}
NO_DATETIMES: dict[str, object] = {
    "date": date(2024, 7, 1),
    "text": "2024-07-01T12:00:00Z",
    "number": 1_700_000_000,
}

Door = Callable[[Connection, Round, Subject, Row], object]


def _attribute(_connection: Connection, _round: Round, subject: Subject, row: Row) -> None:
    subject.model(**row)


def _orm(connection: Connection, _round: Round, subject: Subject, row: Row) -> None:
    # The attributes refuse first; what is set past them meets the type.
    with Session(connection) as session:
        new = subject.model(**{name: value for name, value in row.items() if name not in _names(subject)})
        new.__dict__.update({name: row[name] for name in _names(subject)})
        session.add(new)
        session.flush()


def _bulk(connection: Connection, _round: Round, subject: Subject, row: Row) -> None:
    with Session(connection) as session:
        session.execute(insert(subject.model), [row])


def _core(connection: Connection, _round: Round, subject: Subject, row: Row) -> None:
    connection.execute(insert(subject.table).values(row))


def _comparison(connection: Connection, _round: Round, subject: Subject, row: Row) -> None:
    column = subject.instants[0]
    connection.execute(select(subject.key).where(column > row[column.name])).all()


def _textual(connection: Connection, _round: Round, subject: Subject, row: Row) -> None:
    connection.execute(text("SELECT CAST(:at AS timestamptz)"), {"at": row[subject.instants[0].name]})


def _by_cursor(query: str, wrap: Callable[[Any], object] = lambda value: value) -> Door:
    def ask(connection: Connection, _round: Round, subject: Subject, row: Row) -> None:
        at = wrap(row[subject.instants[0].name])
        raw_connection(connection).execute(sql.SQL(query), [at])

    return ask


def _by_copy(*, binary: bool = False, typed: bool = True) -> Door:
    def copy(connection: Connection, round_: Round, subject: Subject, row: Row) -> None:
        copy_in(connection, round_, subject, [row], binary=binary, typed=typed)

    return copy


def _range(at: Any) -> Range[Any]:  # noqa: ANN401 - whatever is tried
    return TimestamptzRange(at, None)


# Doors at which the type of the column is known refuse dates and texts too; at the others SQL takes them as such.
TYPED_DOORS: dict[str, Door] = {
    "attribute": _attribute,
    "orm": _orm,
    "bulk": _bulk,
    "core": _core,
    "comparison": _comparison,
    "copy": _by_copy(),
    "binary-copy": _by_copy(binary=True),
}
UNTYPED_DOORS: dict[str, Door] = {
    "text": _textual,
    "cursor": _by_cursor("SELECT %t::timestamptz"),
    "binary-cursor": _by_cursor("SELECT %b::timestamptz"),
    "array": _by_cursor("SELECT %s::timestamptz[]", lambda value: [value]),
    "range": _by_cursor("SELECT %t::tstzrange", _range),
    "binary-range": _by_cursor("SELECT %b::tstzrange", _range),
    "untyped-copy": _by_copy(typed=False),
}


def check_refusals(round_: Round, subject: Subject, report: Report) -> None:
    """Try what is no instant at every door; and what is one, at the attribute, which makes it UTC at once."""
    held = [value.held for value in round_.values]
    with round_.engine.begin() as connection:
        (others,) = subject.others(connection, 1)
        rows = subject.rows(connection, held)
    for name, value, door_name, door in _attempts():
        path = f"refused/{door_name}"
        if report.wants(path):
            row = {**others, **dict.fromkeys(_names(subject), value)}
            outcome = _try(round_, subject, door, row, names_column=door_name == "attribute")
            report.check(path, name, repr(value), holds=outcome is None, seen=outcome)
    for value_, row in zip(round_.values, rows, strict=True):
        new = subject.model(**row)
        for column in subject.instants:
            seen = getattr(new, column.name)
            holds = is_instant(seen, value_.microseconds)
            report.check("normalised/attribute", str(column), value_, holds=holds, seen=describe(seen))


def _attempts() -> Iterator[tuple[str, object, str, Door]]:
    for door_name, door in (TYPED_DOORS | UNTYPED_DOORS).items():
        for name, value in NO_INSTANTS.items():
            yield name, value, door_name, door
    for door_name, door in TYPED_DOORS.items():
        for name, other in NO_DATETIMES.items():
            yield name, other, door_name, door


def _try(round_: Round, subject: Subject, door: Door, row: Row, *, names_column: bool) -> str | None:
    """Return None where the door refused, else what happened. Nothing stays of it."""
    with round_.engine.connect() as connection:
        # Begun, so that whatever is taken is rolled back.
        connection.begin()
        try:
            door(connection, round_, subject, row)
        except FAULTS as error:
            reason = error.orig if isinstance(error, StatementError) and error.orig else error
            if isinstance(reason, psycopg.Error) and reason.sqlstate is not None:
                return f"PostgreSQL refused it and not we: {reason.sqlstate} {reason}"
            if names_column and str(subject.instants[0]) not in str(reason):
                return f"the refusal does not name {subject.instants[0]}: {reason}"
            return None
        return "it was taken"


def _names(subject: Subject) -> list[str]:
    return [column.name for column in subject.instants]
