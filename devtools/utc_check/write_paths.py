"""The ways by which rows come to be, each with values as a caller holds them."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection, insert, text
from sqlalchemy.orm import Session

from devtools.utc_check.subjects import Round, Row, Subject
from devtools.utc_check.values import MICROSECOND

Write = Callable[[Round, Subject, list[Row]], None]
Raw = psycopg.Connection[Any]


def orm(round_: Round, subject: Subject, rows: list[Row]) -> None:
    with Session(round_.engine) as session, session.begin():
        session.add_all(subject.model(**row) for row in rows)


def bulk(round_: Round, subject: Subject, rows: list[Row]) -> None:
    with Session(round_.engine) as session, session.begin():
        session.execute(insert(subject.model), rows)


def update(round_: Round, subject: Subject, rows: list[Row]) -> None:
    """Change each attribute from the other side of the fold, where there is one: that is a change to be sent."""
    changed = [column.name for column in subject.free]
    # Of what a trigger keeps, the change is what moves it.
    rows = [{name: value for name, value in row.items() if name not in subject.moving} for row in rows]
    with Session(round_.engine, expire_on_commit=False) as session:
        objects = [subject.model(**_moved(row, changed)) for row in rows]
        session.add_all(objects)
        session.commit()
        for object_, row in zip(objects, rows, strict=True):
            for name in changed:
                setattr(object_, name, row[name])
        session.commit()


def core(round_: Round, subject: Subject, rows: list[Row]) -> None:
    with round_.engine.begin() as connection:
        for row in rows:
            connection.execute(insert(subject.table).values(row))


def textual(round_: Round, subject: Subject, rows: list[Row]) -> None:
    names = list(rows[0])
    statement = text(_insert(round_, subject, [sql.SQL(f":{name}") for name in names], names).as_string())
    with round_.engine.begin() as connection:
        connection.execute(statement, rows)


def cursor(round_: Round, subject: Subject, rows: list[Row]) -> None:
    with round_.engine.begin() as connection:
        _many(raw_connection(connection), round_, subject, rows, "%t")


def binary_cursor(round_: Round, subject: Subject, rows: list[Row]) -> None:
    with round_.engine.begin() as connection:
        _many(raw_connection(connection), round_, subject, rows, "%b")


def copy(round_: Round, subject: Subject, rows: list[Row]) -> None:
    with round_.engine.begin() as connection:
        copy_in(connection, round_, subject, rows)


def binary_copy(round_: Round, subject: Subject, rows: list[Row]) -> None:
    with round_.engine.begin() as connection:
        copy_in(connection, round_, subject, rows, binary=True)


def other_client(round_: Round, subject: Subject, rows: list[Row]) -> None:
    """Write as a program that has nothing of ours, in its own zone, and says each offset."""
    with round_.ground.client() as connection, connection.transaction():
        _many(connection, round_, subject, rows, "%s")


def unpinned(round_: Round, subject: Subject, rows: list[Row]) -> None:
    with Session(round_.stranger) as session, session.begin():
        session.add_all(subject.model(**row) for row in rows)


WRITES: dict[str, Write] = {
    "orm": orm,
    "bulk": bulk,
    "update": update,
    "core": core,
    "text": textual,
    "cursor": cursor,
    "binary-cursor": binary_cursor,
    "copy": copy,
    "binary-copy": binary_copy,
    "other-client": other_client,
    "unpinned": unpinned,
}
"""By name; rows that the API makes are another matter, for it takes no timestamps."""


def copy_in(
    connection: Connection,
    round_: Round,
    subject: Subject,
    rows: list[Row],
    *,
    binary: bool = False,
    typed: bool = True,
) -> None:
    """Send rows by COPY. In text the types may be left for psycopg to find by the values' classes."""
    names = list(rows[0])
    statement = sql.SQL("COPY {} ({}) FROM STDIN" + (" (FORMAT BINARY)" if binary else "")).format(
        round_.ground.table(subject.table), _identifiers(names)
    )
    with raw_connection(connection).cursor() as cursor_, cursor_.copy(statement) as copying:
        if typed:
            types = (subject.table.c[name].type for name in names)
            copying.set_types([type_.compile(connection.dialect).lower() for type_ in types])
        for row in rows:
            copying.write_row([row[name] for name in names])


def _many(connection: Raw, round_: Round, subject: Subject, rows: list[Row], placeholder: str) -> None:
    names = list(rows[0])
    statement = _insert(round_, subject, [sql.SQL(cast("Any", placeholder))] * len(names), names)
    with connection.cursor() as cursor_:
        cursor_.executemany(statement, [[row[name] for name in names] for row in rows])


def _insert(round_: Round, subject: Subject, values: list[sql.SQL], names: list[str]) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        round_.ground.table(subject.table), _identifiers(names), sql.SQL(", ").join(values)
    )


def _identifiers(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def raw_connection(connection: Connection) -> Raw:
    return cast("Raw", connection.connection.driver_connection)


def _moved(row: Row, names: list[str]) -> Row:
    return {**row, **{name: _other_side(row[name]) for name in names}}


def _other_side(value: datetime) -> datetime:
    other = value.replace(fold=1 - value.fold)
    if other.utcoffset() != value.utcoffset():
        return other
    # Away from the end of the range that it may stand at.
    return value + MICROSECOND if value.microsecond == 0 else value - MICROSECOND
