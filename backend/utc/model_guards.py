"""`guard_models`: attributes in UTC, a range for each column, and a trigger for the two timestamps."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Column, Connection, MetaData, Table, event, text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.elements import ClauseElement

from backend.utc.column import UtcDateTime
from backend.utc.instants import ensure_utc
from backend.utc.triggers import KEEP_TIMESTAMPS_FUNCTION, keep_timestamps_trigger

# With these bounds, every time zone can show the value in the years 1 to 9999, because an offset is less than a day.
_RANGE = "{column} >= '0001-01-02 00:00:00+00' AND {column} < '9999-12-31 00:00:00+00'"


def guard_models(base: type[DeclarativeBase]) -> None:
    """Guard every `UtcDateTime` column that is mapped on this base so far. Call it once, after the last model.

    - A value is converted to UTC when it is set on an attribute, so it is the same before a flush as after a refresh,
      and assigning the other side of a fold is a change. A value that `ensure_utc` refuses raises its error with the
      column's name.
    - Each column gets a CHECK, named `<column>_range` by the metadata's naming convention. It refuses values that
      Python cannot represent in every zone: infinity, years BC, and the first and last day of Python's calendar.
    - `create_all` also creates the trigger that maintains `created_at` and `updated_at` on tables that have both.
    """
    for mapper in base.registry.mappers:
        for column in mapper.columns:
            if isinstance(column.type, UtcDateTime):
                attribute = getattr(mapper.class_, mapper.get_property_by_column(column).key)
                event.listen(attribute, "set", _setter(column), retval=True, propagate=True)
    for table in base.metadata.tables.values():
        for column in list(table.c):
            if isinstance(column.type, UtcDateTime):
                check = CheckConstraint(_RANGE.format(column=column.name), name=f"{column.name}_range")
                table.append_constraint(check)
    event.listen(base.metadata, "after_create", _create_triggers)


def _setter(column: Column[Any]) -> Callable[..., object]:
    def set_utc(
        _row: object, value: datetime | ClauseElement | None, _before: object, _initiator: object
    ) -> object:
        # PostgreSQL evaluates an expression, as in `row.run_at = func.now()`.
        if value is None or isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
            return value
        try:
            return ensure_utc(value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{column}: {error}") from error

    return set_utc


def _create_triggers(_metadata: MetaData, connection: Connection, tables: list[Table], **_: object) -> None:
    maintained = [table for table in tables if {"created_at", "updated_at"} <= set(table.c.keys())]
    if maintained:
        connection.execute(text(KEEP_TIMESTAMPS_FUNCTION))
    for table in maintained:
        connection.execute(text(keep_timestamps_trigger(table.fullname)))
