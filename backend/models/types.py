"""The column types and annotated columns that the tables share."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from sqlalchemy import CheckConstraint, Dialect, FetchedValue, Identity, Text, func
from sqlalchemy.orm import mapped_column
from sqlalchemy.types import TypeDecorator

Enumeration = TypeVar("Enumeration", bound=StrEnum)

JsonObject = dict[str, Any]

# ALWAYS refuses explicit keys: the sequence would not skip them, and a later insert would fail.
PrimaryKey = Annotated[int, mapped_column(Identity(always=True), primary_key=True)]

CreatedAt = Annotated[datetime, mapped_column(server_default=func.now())]

# The trigger of backend.utc sets it; because of FetchedValue, the ORM reads it back with RETURNING.
UpdatedAt = Annotated[datetime, mapped_column(server_default=func.now(), server_onupdate=FetchedValue())]


class TextEnum(TypeDecorator[Enumeration]):
    """An enumeration in a TEXT column, loaded as its member.

    SQLAlchemy's own `Enum` creates either a PostgreSQL type, whose values can never be removed, or a VARCHAR as
    long as the longest value of today. The CHECK of `one_of` restricts the values.
    """

    impl = Text
    cache_ok = True

    def __init__(self, enumeration: type[Enumeration]) -> None:
        super().__init__()
        self.enumeration = enumeration

    def process_bind_param(self, value: Enumeration | str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Raise ValueError for a value that is not a member."""
        return None if value is None else self.enumeration(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> Enumeration | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else self.enumeration(value)


def one_of(column: str, enumeration: type[StrEnum]) -> CheckConstraint:
    """Return the CHECK, named after the column, that allows only the enumeration's values."""
    return CheckConstraint(f"{column} IN ({literals(*enumeration)})", name=column)


def literals(*members: StrEnum) -> str:
    """Return the members as SQL literals, for checks and predicates of indexes."""
    return ", ".join(f"'{member.value}'" for member in members)


def length_between(column: str, shortest: int, longest: int) -> CheckConstraint:
    """Return the CHECK, named after the column, that bounds a text's length in characters."""
    return CheckConstraint(f"char_length({column}) BETWEEN {shortest} AND {longest}", name=f"{column}_length")


def is_object(column: str) -> CheckConstraint:
    """Return the CHECK, named after the column, that allows only objects in a jsonb column."""
    return CheckConstraint(f"jsonb_typeof({column}) = 'object'", name=f"{column}_is_object")
