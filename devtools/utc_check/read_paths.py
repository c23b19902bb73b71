"""The ways by which rows are read, and what each must show."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import sql
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.orm import Session

from devtools.utc_check.subjects import Round, Subject
from devtools.utc_check.values import EPOCH, MICROSECOND, canonical
from devtools.utc_check.writes import raw_connection

Seen = Iterable[tuple[Any, ...]]
"""Rows of a key and what is seen of each instant, in the order of the subject's columns."""

# As ISO DateStyle renders a session that is pinned: with six digits or fewer, in UTC.
_RENDERED = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(\.\d{1,6})?\+00")


@dataclass(frozen=True)
class Read:
    """Read the subject's rows whose key is above `after`; `shows` tells whether what is seen is this instant."""

    read: Callable[[Round, Subject, int], Seen]
    shows: Callable[[Any, int], bool]


def is_instant(seen: object, microseconds: int) -> bool:
    """Whether it is a plain datetime in `timezone.utc`, and this one."""
    if type(seen) is not datetime or seen.tzinfo is not UTC:
        return False
    return (seen - EPOCH) // MICROSECOND == microseconds


def is_canonical(seen: object, microseconds: int) -> bool:
    return seen == canonical(microseconds)


def is_rendered(seen: object, microseconds: int) -> bool:
    match = _RENDERED.fullmatch(str(seen))
    return match is not None and canonical(microseconds) == (
        f"{match[1]}T{match[2]}{(match[3] or '.').ljust(7, '0')}Z"
    )


def is_narrow_range(seen: object, microseconds: int) -> bool:
    """Whether it is the range from this instant to the microsecond after it."""
    return (
        isinstance(seen, Range)
        and is_instant(seen.lower, microseconds)
        and is_instant(seen.upper, microseconds + 1)
    )


def is_narrow_multirange(seen: object, microseconds: int) -> bool:
    return isinstance(seen, Multirange) and len(seen) == 1 and is_narrow_range(seen[0], microseconds)


def describe(seen: object) -> str:
    """Say what was seen so that a wrong zone shows."""
    if isinstance(seen, datetime):
        return f"{seen.isoformat()} in {seen.tzinfo}"
    if isinstance(seen, Range):
        return f"from {describe(seen.lower)} to {describe(seen.upper)}"
    return ", ".join(map(describe, seen)) if isinstance(seen, Multirange) else str(seen)


def over_http(round_: Round, subject: Subject, after: int) -> Seen:
    if subject.resource is None:
        return
    where: str | None = f"{subject.resource.listing}?limit=200"
    while where is not None:
        answer = round_.client.send("GET", where)
        if answer.status != 200:  # noqa: PLR2004 - HTTP's OK
            raise ValueError(f"GET {where}: {answer.status} {answer.text[:200]}")
        page = answer.json()
        for item in page["items"]:
            if item[subject.key.name] > after:
                yield (item[subject.key.name], *(item.get(column.name) for column in subject.instants))
        cursor = page["next_cursor"]
        where = cursor and f"{subject.resource.listing}?limit=200&cursor={cursor}"


def by_orm(
    engine: Callable[[Round], Engine], *, midway: bool = False
) -> Callable[[Round, Subject, int], Seen]:
    def read(round_: Round, subject: Subject, after: int) -> Seen:
        names = [subject.key.name, *(column.name for column in subject.instants)]
        with Session(engine(round_)) as session:
            if midway:
                _change_zone(session.connection(), round_.zone)
            for row in session.scalars(select(subject.model).where(subject.key > after)):
                yield tuple(getattr(row, name) for name in names)

    return read


def by_core(*, midway: bool = False) -> Callable[[Round, Subject, int], Seen]:
    def read(round_: Round, subject: Subject, after: int) -> Seen:
        with _begun(round_, midway=midway) as connection:
            statement = select(subject.key, *subject.instants).where(subject.key > after)
            yield from (tuple(row) for row in connection.execute(statement))

    return read


def textual(round_: Round, subject: Subject, after: int) -> Seen:
    with round_.engine.begin() as connection:
        yield from (
            tuple(row) for row in connection.execute(text(_query(round_, subject, after, "{0}").as_string()))
        )


def by_cursor(
    expression: str, *, binary: bool = False, midway: bool = False
) -> Callable[[Round, Subject, int], Seen]:
    """Read through psycopg's own cursor; `{0}` in the expression is the column."""

    def read(round_: Round, subject: Subject, after: int) -> Seen:
        with (
            _begun(round_, midway=midway) as connection,
            raw_connection(connection).cursor(binary=binary) as cursor,
        ):
            yield from cursor.execute(_query(round_, subject, after, expression)).fetchall()

    return read


def as_arrays(*, binary: bool) -> Callable[[Round, Subject, int], Seen]:
    def read(round_: Round, subject: Subject, after: int) -> Seen:
        key = sql.Identifier(subject.key.name)
        arrays = sql.SQL(", ").join(
            sql.SQL("array_agg({} ORDER BY {})").format(sql.Identifier(name), key)
            for name in (subject.key.name, *(column.name for column in subject.instants))
        )
        query = sql.SQL("SELECT {} FROM {} WHERE {} > {}").format(
            arrays, round_.ground.table(subject.table), key, after
        )
        with _begun(round_) as connection, raw_connection(connection).cursor(binary=binary) as cursor:
            row = cursor.execute(query).fetchone()
            yield from zip(*(array or () for array in row or ()), strict=True)

    return read


def by_copy(*, binary: bool, midway: bool = False) -> Callable[[Round, Subject, int], Seen]:
    def read(round_: Round, subject: Subject, after: int) -> Seen:
        statement = sql.SQL("COPY ({}) TO STDOUT" + (" (FORMAT BINARY)" if binary else "")).format(
            _query(round_, subject, after, "{0}")
        )
        with (
            _begun(round_, midway=midway) as connection,
            raw_connection(connection).cursor() as cursor,
            cursor.copy(statement) as copying,
        ):
            copying.set_types(["bigint", *["timestamptz"] * len(subject.instants)])
            yield from copying.rows()

    return read


_RANGE = "tstzrange({0}, {0} + interval '1 microsecond')"

READS: dict[str, Read] = {
    "http": Read(over_http, is_canonical),
    "orm": Read(by_orm(lambda round_: round_.engine), is_instant),
    "orm-midway": Read(by_orm(lambda round_: round_.engine, midway=True), is_instant),
    "core": Read(by_core(), is_instant),
    "core-midway": Read(by_core(midway=True), is_instant),
    "text": Read(textual, is_instant),
    "cursor": Read(by_cursor("{0}"), is_instant),
    "cursor-midway": Read(by_cursor("{0}", midway=True), is_instant),
    "binary-cursor": Read(by_cursor("{0}", binary=True), is_instant),
    "array": Read(as_arrays(binary=False), is_instant),
    "binary-array": Read(as_arrays(binary=True), is_instant),
    "range": Read(by_cursor(_RANGE), is_narrow_range),
    "binary-range": Read(by_cursor(_RANGE, binary=True, midway=True), is_narrow_range),
    "multirange": Read(by_cursor(f"tstzmultirange({_RANGE})"), is_narrow_multirange),
    "copy": Read(by_copy(binary=False), is_instant),
    "copy-midway": Read(by_copy(binary=False, midway=True), is_instant),
    "binary-copy": Read(by_copy(binary=True), is_instant),
    "rendered": Read(by_cursor("{0}::text"), is_rendered),
    "unpinned": Read(by_orm(lambda round_: round_.stranger), is_instant),
}
"""By name. Midway is in a transaction whose zone was changed; rendered is PostgreSQL's own text; unpinned is an engine
that somebody else made, through the models' type alone."""


def stored(round_: Round, subject: Subject, after: int) -> list[tuple[Any, ...]]:
    """Ask the oracle: whole microseconds, which no rendering and no zone can touch."""
    query = _query(round_, subject, after, "(extract(epoch FROM {0}) * 1000000)::int8")
    return round_.ground.oracle.execute(query).fetchall()


def _query(round_: Round, subject: Subject, after: int, expression: str) -> sql.Composed:
    key = sql.Identifier(subject.key.name)
    columns = [sql.SQL(expression).format(sql.Identifier(column.name)) for column in subject.instants]
    return sql.SQL("SELECT {} FROM {} WHERE {} > {} ORDER BY {}").format(
        sql.SQL(", ").join([key, *columns]), round_.ground.table(subject.table), key, after, key
    )


@contextmanager
def _begun(round_: Round, *, midway: bool = False) -> Iterator[Connection]:
    with round_.engine.begin() as connection:
        if midway:
            _change_zone(connection, round_.zone)
        yield connection


def _change_zone(connection: Connection, zone: str) -> None:
    connection.execute(text("SELECT set_config('timezone', :zone, true)"), {"zone": zone})
