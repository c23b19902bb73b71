"""What is proved: the models, the other columns that their rows need, and where the application shows them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import Column, Connection, Engine, Table, inspect
from sqlalchemy.orm import DeclarativeBase

from backend.utc.column import UtcDateTime
from devtools.utc_check.application import Client
from devtools.utc_check.ground import Ground
from devtools.utc_check.values import Value

Row = dict[str, Any]
Request = tuple[str, Mapping[str, object]]
"""A path and the body that is sent there."""


@dataclass(frozen=True)
class Resource:
    """Where the application shows a subject's rows, and makes and changes them."""

    listing: str
    """The path of a list of objects under `items`, in the order of their keys; `next_cursor` asks for the next page."""
    create: Callable[[Connection], Request]
    """Make ready what a new row refers to, and return what is posted."""
    change: Callable[[Mapping[str, Any]], Request]
    """Return what is patched to change this object, as the application shows it."""


@dataclass(frozen=True)
class Subject:
    """A model whose table has a primary key of one column, and whose attributes have the columns' names."""

    model: type[DeclarativeBase]
    others: Callable[[Connection, int], list[Row]]
    """Make ready what so many new rows refer to, and return those columns of theirs that hold no timestamp."""
    change: Row = field(default_factory=dict)
    """Values that no row has which `others` made: setting them is a change, and setting the others' again is one."""
    resource: Resource | None = None
    in_every_zone: bool = False
    """Whether its rows are written in sessions of every zone; in the first they always are."""

    @cached_property
    def table(self) -> Table:
        table = inspect(self.model).local_table
        if not isinstance(table, Table):
            raise TypeError(f"{self.model.__name__} is not mapped to a table")
        return table

    @cached_property
    def key(self) -> Column[Any]:
        (key,) = self.table.primary_key
        return key

    @cached_property
    def instants(self) -> list[Column[Any]]:
        return [column for column in self.table.c if isinstance(column.type, UtcDateTime)]

    @property
    def is_kept(self) -> bool:
        """Whether a trigger keeps created_at and updated_at."""
        return {"created_at", "updated_at"} <= set(self.table.c.keys())

    @property
    def moving(self) -> set[str]:
        """The columns that a trigger sets when a row changes."""
        return {"updated_at"} if self.is_kept else set()

    @property
    def free(self) -> list[Column[Any]]:
        """The columns of instants that may be set on a row that is there."""
        return [column for column in self.instants if column.name not in {"created_at", *self.moving}]

    def rows(self, connection: Connection, values: list[Any]) -> list[Row]:
        """Return a row for each value, with the value in each column that holds an instant."""
        return [
            {**others, **{column.name: value for column in self.instants}}
            for others, value in zip(self.others(connection, len(values)), values, strict=True)
        ]


@dataclass(frozen=True)
class Round:
    """One zone, and all ways in and out under it."""

    ground: Ground
    zone: str
    values: list[Value]
    engine: Engine
    """Pinned as the given one is."""
    stranger: Engine
    """Not pinned."""
    client: Client
