"""What is measured beside each other: tables and models of instants, and the same of plain timestamps."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlalchemy import BigInteger, DateTime, Identity, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from backend.utc import UtcDateTime, UtcField, guard_models

ROWS = 100_000
START = datetime(2024, 1, 1, tzinfo=UTC)
VALUES = [
    {
        "one": START + timedelta(minutes=number),
        "other": START + timedelta(seconds=number, microseconds=number),
    }
    for number in range(ROWS)
]


@dataclass
class Item:
    """A row as the ORM gives it."""

    id: int
    name: str
    created_at: datetime
    updated_at: datetime


ITEMS = [
    Item(number, f"Company {number}", row["one"], row["other"]) for number, row in enumerate(VALUES[:1000])
]


class PlainBase(DeclarativeBase):
    pass


class Plain(PlainBase):
    __tablename__ = "instants"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    one: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    other: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class OurBase(DeclarativeBase):
    pass


class Ours(OurBase):
    """The same table, so that its rows lie on the same pages."""

    __tablename__ = "instants"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    one: Mapped[datetime] = mapped_column(UtcDateTime())
    other: Mapped[datetime] = mapped_column(UtcDateTime())


# What is written goes where nothing is read.
WRITTEN = tuple(model.__table__.to_metadata(MetaData(), name="written") for model in (Plain, Ours))  # type: ignore[attr-defined]  # a table


class GuardedBase(DeclarativeBase):
    pass


class Guarded(GuardedBase):
    """With the CHECKs, whose cost is PostgreSQL's own."""

    __tablename__ = "guarded"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    one: Mapped[datetime] = mapped_column(UtcDateTime())
    other: Mapped[datetime] = mapped_column(UtcDateTime())


guard_models(GuardedBase)


class PlainItem(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    created_at: datetime
    updated_at: datetime


class UtcItem(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    created_at: UtcField
    updated_at: UtcField
