"""Every way to write and every way to read rows, by name. Each works in a transaction that its caller began."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.orm import Session

from devtools.utc_check.cases import EPOCH, canonical
from devtools.utc_check.subjects import Row, Subject, Target

Write = Callable[[Connection, Target, Subject, list[Row]], object]
Rows = Iterable[Iterable[Any]]
"""Each with the key and what was read of each timestamp."""
MICROSECONDS = "(extract(epoch FROM {0}) * 1000000)::int8"
"""What no rendering and no zone can falsify."""
OK = 200
# PostgreSQL's text in a pinned session.
_RENDERED = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(\.\d{1,6})?\+00")


def write_orm(connection: Connection, _target: Target, subject: Subject, rows: list[Row]) -> None:
    with Session(connection) as session:
        session.add_all(subject.model(**row) for row in rows)
        session.flush()


def write_update(connection: Connection, _target: Target, subject: Subject, rows: list[Row]) -> None:
    """Change each attribute from the other side of its fold, if it is in one: an UPDATE must be sent."""
    with Session(connection) as session:
        objects = []
        for row in rows:
            # The trigger sets updated_at.
            first = {name: value for name, value in row.items() if name != "updated_at"}
            objects.append(
                subject.model(**first | {name: _other_side(row[name]) for name in subject.changeable})
            )
        session.add_all(objects)
        session.flush()
        for new, row in zip(objects, rows, strict=True):
            for name in subject.changeable:
                setattr(new, name, row[name])
        session.flush()


def _other_side(value: datetime) -> datetime:
    other = value.replace(fold=1 - value.fold)
    if other.utcoffset() != value.utcoffset():
        return other
    # Not in a fold: a microsecond away, on the side that is in the column's range.
    return value + timedelta(microseconds=-1 if value.microsecond else 1)


def write_core(connection: Connection, _target: Target, subject: Subject, rows: list[Row]) -> None:
    for row in rows:
        connection.execute(insert(subject.table).values(row))


def write_cursor(
    connection: Connection, target: Target, subject: Subject, rows: list[Row], place: str
) -> None:
    with driver(connection).cursor() as cursor:
        statement = insert_statement(target, subject, rows[0], place)
        cursor.executemany(statement.encode(), [list(row.values()) for row in rows])


def write_copy(
    connection: Connection, target: Target, subject: Subject, rows: list[Row], options: str
) -> None:
    statement = f"COPY {target.name(subject.table)} ({', '.join(rows[0])}) FROM STDIN {options}"
    types = [subject.table.c[name].type.compile(connection.dialect).lower() for name in rows[0]]
    with driver(connection).cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(list(row.values()))


def write_plain(_connection: Connection, target: Target, subject: Subject, rows: list[Row]) -> None:
    statement = insert_statement(target, subject, rows[0], "%s").encode()
    with target.plain.transaction(), target.plain.cursor() as cursor:
        cursor.executemany(statement, [list(row.values()) for row in rows])


UPDATE = "orm-update"
WRITES: dict[str, Write] = {
    "orm": write_orm,
    "orm-bulk": lambda connection, _, subject, rows: Session(connection).execute(insert(subject.model), rows),
    UPDATE: write_update,
    "core": write_core,
    "text": lambda connection, target, subject, rows: connection.execute(
        text(insert_statement(target, subject, rows[0], ":{}")), rows
    ),
    "cursor": partial(write_cursor, place="%t"),
    "binary-cursor": partial(write_cursor, place="%b"),
    "copy": partial(write_copy, options=""),
    "binary-copy": partial(write_copy, options="(FORMAT BINARY)"),
    "plain": write_plain,
    "unpinned": write_orm,
}
"""The API writes too, but accepts no timestamps: see `crossing`."""


def read_http(_connection: Connection, target: Target, subject: Subject, after: int) -> Rows:
    cursor = ""
    while subject.listing and cursor is not None:
        query = {"limit": "200"} | ({"cursor": cursor} if cursor else {})
        response = target.client.get(subject.listing, params=query)
        if response.status_code != OK:
            raise ValueError(f"GET {subject.listing}: {response.status_code} {response.text[:200]}")
        for item in response.json()["items"]:
            if item[subject.key.name] > after:
                yield (item[name] for name in (subject.key.name, *subject.names))
        cursor = response.json()["next_cursor"]


def read_orm(connection: Connection, _target: Target, subject: Subject, after: int) -> Rows:
    with Session(connection) as session:
        for row in session.scalars(select(subject.model).where(subject.key > after)):
            yield (getattr(row, name) for name in (subject.key.name, *subject.names))


def read_core(connection: Connection, _target: Target, subject: Subject, after: int) -> Rows:
    columns = [subject.table.c[name] for name in subject.names]
    return connection.execute(select(subject.key, *columns).where(subject.key > after))


def read_text(connection: Connection, target: Target, subject: Subject, after: int) -> Rows:
    return connection.execute(text(select_statement(target, subject, after)))


def read_cursor(
    connection: Connection,
    target: Target,
    subject: Subject,
    after: int,
    *,
    what: str = "{0}",
    binary: bool = False,
) -> Rows:
    statement = select_statement(target, subject, after, what)
    return driver(connection).execute(statement.encode(), binary=binary).fetchall()


def read_copy(
    connection: Connection, target: Target, subject: Subject, after: int, options: str = ""
) -> Rows:
    statement = f"COPY ({select_statement(target, subject, after)}) TO STDOUT {options}"
    with driver(connection).cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(["int8", *["timestamptz"] * len(subject.names)])
        yield from copy.rows()


def is_utc(seen: object, microseconds: int) -> bool:
    """Whether it is a plain datetime in `timezone.utc`, and this instant."""
    if type(seen) is not datetime or seen.tzinfo is not UTC:
        return False
    return (seen - EPOCH) // timedelta(microseconds=1) == microseconds


def are_utc(seen: Iterable[object], microseconds: int) -> bool:
    return all(is_utc(part, microseconds) for part in seen)


def is_range(seen: Any, microseconds: int) -> bool:  # noqa: ANN401 - a range or a multirange of one
    range_ = seen if hasattr(seen, "lower") else seen[0]
    return are_utc((range_.lower, range_.upper), microseconds)


def is_canonical(seen: object, microseconds: int) -> bool:
    return seen == canonical(microseconds)


def is_rendered(seen: object, microseconds: int) -> bool:
    match = _RENDERED.fullmatch(str(seen))
    return match is not None and canonical(microseconds) == (
        f"{match[1]}T{match[2]}{(match[3] or '.').ljust(7, '0')}Z"
    )


@dataclass(frozen=True)
class Read:
    """Read the rows whose key is above a number; `shows` tells whether what was read is this instant."""

    rows: Callable[[Connection, Target, Subject, int], Rows]
    shows: Callable[[Any, int], bool] = is_utc
    set_local: bool = False
    """Whether to move the session to another zone in the same transaction first."""


_ARRAY, _RANGE = "ARRAY[{0}, {0}]", "tstzrange({0}, {0}, '[]')"
READS: dict[str, Read] = {
    "http": Read(read_http, is_canonical),
    "orm": Read(read_orm),
    "orm-set-local": Read(read_orm, set_local=True),
    "core": Read(read_core),
    "core-set-local": Read(read_core, set_local=True),
    "text": Read(read_text),
    "cursor": Read(read_cursor),
    "cursor-set-local": Read(read_cursor, set_local=True),
    "binary-cursor": Read(partial(read_cursor, binary=True), set_local=True),
    "array": Read(partial(read_cursor, what=_ARRAY), are_utc, set_local=True),
    "binary-array": Read(partial(read_cursor, what=_ARRAY, binary=True), are_utc, set_local=True),
    # Only in its binary form does a record have typed values.
    "binary-record": Read(partial(read_cursor, what="row({0})", binary=True), are_utc, set_local=True),
    "range": Read(partial(read_cursor, what=_RANGE), is_range, set_local=True),
    "binary-range": Read(partial(read_cursor, what=_RANGE, binary=True), is_range, set_local=True),
    "multirange": Read(partial(read_cursor, what=f"tstzmultirange({_RANGE})"), is_range, set_local=True),
    "copy": Read(read_copy),
    "copy-set-local": Read(read_copy, set_local=True),
    "binary-copy": Read(partial(read_copy, options="(FORMAT BINARY)"), set_local=True),
    "rendered": Read(partial(read_cursor, what="{0}::text"), is_rendered),
    "unpinned": Read(read_orm),
}


def stored(target: Target, subject: Subject, after: int) -> list[tuple[Any, ...]]:
    """Return what PostgreSQL has, in microseconds from 1970, by a connection that nothing of ours has touched."""
    return target.plain.execute(select_statement(target, subject, after, MICROSECONDS).encode()).fetchall()


def insert_statement(target: Target, subject: Subject, row: Row, place: str) -> str:
    places = ", ".join(place.format(name) for name in row)
    return f"INSERT INTO {target.name(subject.table)} ({', '.join(row)}) VALUES ({places})"


def select_statement(target: Target, subject: Subject, after: int, what: str = "{0}") -> str:
    key = subject.key.name
    columns = ", ".join([key, *(what.format(name) for name in subject.names)])
    return f"SELECT {columns} FROM {target.name(subject.table)} WHERE {key} > {after} ORDER BY {key}"


def driver(connection: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)
