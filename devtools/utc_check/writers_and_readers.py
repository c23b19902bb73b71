"""Every way to write and to read rows, by name. Each one works in a transaction that its caller has begun."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import psycopg
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.orm import Session

from devtools.utc_check.cases import EPOCH, canonical
from devtools.utc_check.sandbox_schema import Row, Subject

Write = Callable[[Connection, Subject, list[Row]], object]
Rows = Iterable[Iterable[Any]]
"""Each row has the key and the values that were read for its timestamps."""
UPDATE = "orm-update"


def driver(connection: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def write_orm(connection: Connection, subject: Subject, rows: list[Row]) -> None:
    with Session(connection) as session:
        session.add_all(subject.model(**row) for row in rows)
        session.flush()


def write_update(connection: Connection, subject: Subject, rows: list[Row]) -> None:
    """Insert other values, and change each attribute, so that an UPDATE is sent."""
    with Session(connection) as session:
        objects = [subject.model(**row | dict.fromkeys(subject.changeable, EPOCH)) for row in rows]
        session.add_all(objects)
        session.flush()
        for changed, row in zip(objects, rows, strict=True):
            for name in subject.changeable:
                setattr(changed, name, row[name])
        session.flush()


def write_bulk(connection: Connection, subject: Subject, rows: list[Row]) -> None:
    with Session(connection) as session:
        session.execute(insert(subject.model), rows)


def write_core(connection: Connection, subject: Subject, rows: list[Row]) -> None:
    for row in rows:
        connection.execute(insert(subject.table).values(row))


def write_text(connection: Connection, subject: Subject, rows: list[Row]) -> None:
    connection.execute(text(subject.insert(rows[0], ":{}")), rows)


def write_cursor(connection: Connection, subject: Subject, rows: list[Row], place: str) -> None:
    with driver(connection).cursor() as cursor:
        cursor.executemany(subject.insert(rows[0], place).encode(), [list(row.values()) for row in rows])


def write_copy(connection: Connection, subject: Subject, rows: list[Row], options: str) -> None:
    statement = f"COPY {subject.full_name} ({', '.join(rows[0])}) FROM STDIN {options}"
    types = [subject.table.c[name].type.compile(connection.dialect).lower() for name in rows[0]]
    with driver(connection).cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(list(row.values()))


def write_plain(_connection: Connection, subject: Subject, rows: list[Row]) -> None:
    with subject.target.plain.transaction(), subject.target.plain.cursor() as cursor:
        cursor.executemany(subject.insert(rows[0], "%s").encode(), [list(row.values()) for row in rows])


WRITES: dict[str, Write] = {
    "orm": write_orm,
    "orm-bulk": write_bulk,
    UPDATE: write_update,
    "core": write_core,
    "text": write_text,
    "cursor": partial(write_cursor, place="%t"),
    "binary-cursor": partial(write_cursor, place="%b"),
    "copy": partial(write_copy, options=""),
    "binary-copy": partial(write_copy, options="(FORMAT BINARY)"),
    "plain": write_plain,
    "unpinned": write_orm,
}
"""The API writes too, but accepts no timestamps: see `round_trips`."""


def read_http(_connection: Connection, subject: Subject, after: int) -> Rows:
    query: dict[str, str] | None = {"limit": "200"}
    while query:
        response = subject.target.client.get(subject.listing, params=query)
        page = response.raise_for_status().json()
        for item in page["items"]:
            if item[subject.key.name] > after:
                yield (item[name] for name in (subject.key.name, *subject.names))
        query = {**query, "cursor": page["next_cursor"]} if page["next_cursor"] else None


def read_orm(connection: Connection, subject: Subject, after: int) -> Rows:
    with Session(connection) as session:
        for row in session.scalars(select(subject.model).where(subject.key > after)):
            yield (getattr(row, name) for name in (subject.key.name, *subject.names))


def read_core(connection: Connection, subject: Subject, after: int) -> Rows:
    columns = [subject.table.c[name] for name in subject.names]
    return connection.execute(select(subject.key, *columns).where(subject.key > after))


def read_text(connection: Connection, subject: Subject, after: int) -> Rows:
    return connection.execute(text(subject.select(after)))


def read_cursor(
    connection: Connection, subject: Subject, after: int, what: str = "{0}", *, binary: bool = False
) -> Rows:
    return driver(connection).execute(subject.select(after, what).encode(), binary=binary)


def read_copy(connection: Connection, subject: Subject, after: int, options: str = "") -> Rows:
    statement = f"COPY ({subject.select(after)}) TO STDOUT {options}"
    with driver(connection).cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(["int8", *["timestamptz"] * len(subject.names)])
        yield from copy.rows()


def is_utc(seen: object, microseconds: int) -> bool:
    """Whether it is a plain datetime in `timezone.utc`, and this instant."""
    if type(seen) is not datetime or seen.tzinfo is not UTC:
        return False
    return (seen - EPOCH) // timedelta(microseconds=1) == microseconds


def are_utc(seen: Any, microseconds: int) -> bool:  # noqa: ANN401 - an array, a record, a range or a multirange of one
    range_ = seen[0] if isinstance(seen, Multirange) else seen
    parts = (range_.lower, range_.upper) if isinstance(range_, Range) else seen
    return all(is_utc(part, microseconds) for part in parts)


def is_canonical(seen: object, microseconds: int) -> bool:
    return seen == canonical(microseconds)


@dataclass(frozen=True)
class Read:
    """Read the rows whose key is above a number; `shows` decides whether a value that was read is this instant."""

    rows: Callable[[Connection, Subject, int], Rows]
    shows: Callable[[Any, int], bool] = is_utc


_ARRAY, _RANGE = "ARRAY[{0}, {0}]", "tstzrange({0}, {0}, '[]')"
READS: dict[str, Read] = {
    "http": Read(read_http, is_canonical),
    "orm": Read(read_orm),
    "core": Read(read_core),
    "text": Read(read_text),
    "cursor": Read(read_cursor),
    "binary-cursor": Read(partial(read_cursor, binary=True)),
    "array": Read(partial(read_cursor, what=_ARRAY), are_utc),
    "binary-array": Read(partial(read_cursor, what=_ARRAY, binary=True), are_utc),
    # A record has typed values only in binary form.
    "binary-record": Read(partial(read_cursor, what="row({0})", binary=True), are_utc),
    "range": Read(partial(read_cursor, what=_RANGE), are_utc),
    "binary-range": Read(partial(read_cursor, what=_RANGE, binary=True), are_utc),
    "multirange": Read(partial(read_cursor, what=f"tstzmultirange({_RANGE})"), are_utc),
    "copy": Read(read_copy),
    "binary-copy": Read(partial(read_copy, options="(FORMAT BINARY)")),
    "unpinned": Read(read_orm),
}
