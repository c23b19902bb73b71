"""The cost of UTC timestamps, compared with plain `DateTime(timezone=True)` in a session that is already in UTC."""

import gc
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median
from typing import Any

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import DateTime, Engine, create_engine, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from backend.utc import UtcDateTime, UtcField, guard_models, pin_utc
from benchmarks.reporting import print_table, take_turns
from devtools.database import temporary

ROWS, ITEMS, CHECKOUTS = 20_000, 1_000, 1_000
START = datetime(2024, 1, 1, tzinfo=UTC)
VALUES = [
    {"one": START + timedelta(minutes=number), "other": START + timedelta(microseconds=number)}
    for number in range(ROWS)
]


class Base(DeclarativeBase):
    pass


class Plain(Base):
    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True)
    one: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    other: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Ours(Base):
    __tablename__ = "ours"

    id: Mapped[int] = mapped_column(primary_key=True)
    one: Mapped[datetime] = mapped_column(UtcDateTime())
    other: Mapped[datetime] = mapped_column(UtcDateTime())


guard_models(Base)


class PlainItem(BaseModel):
    one: datetime
    other: datetime


class OurItem(BaseModel):
    one: UtcField
    other: UtcField


@dataclass(frozen=True)
class Side:
    """One of the two ways that are compared."""

    engine: Engine
    model: type[Any]
    dump_items: Callable[[], bytes]


def read_orm(side: Side) -> None:
    with Session(side.engine) as session:
        session.scalars(select(side.model)).all()


def read_core(side: Side) -> None:
    with side.engine.connect() as connection:
        connection.execute(select(*side.model.__table__.c)).all()


def write(side: Side) -> None:
    with side.engine.connect() as connection:
        connection.execute(text(f"TRUNCATE {side.model.__tablename__} RESTART IDENTITY"))
        connection.execute(insert(side.model.__table__), VALUES)
        connection.rollback()


def check_out(side: Side) -> None:
    for _ in range(CHECKOUTS):
        with side.engine.connect():
            pass


def dump_json(side: Side) -> None:
    side.dump_items()


def dump(model: type[BaseModel]) -> Callable[[], bytes]:
    """Return a function that writes the first values as the JSON of this model."""
    items = TypeAdapter[Any](list[model])  # type: ignore[valid-type]  # mypy wants a type that it knows, and this is a parameter
    return partial(items.dump_json, items.validate_python(VALUES[:ITEMS]))


WORK: dict[str, Callable[[Side], None]] = {
    "read by the ORM": read_orm,
    "read by Core": read_core,
    "bulk write": write,
    f"{CHECKOUTS:,} checkouts": check_out,
    f"JSON of {ITEMS:,} rows": dump_json,
}


def timed(work: Callable[[Side], None], side: Side) -> float:
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    work(side)
    taken = time.perf_counter() - began
    gc.enable()
    return taken


def main(runs: int = 5) -> None:
    measured = defaultdict[tuple[str, Side], list[float]](list)
    with temporary("Using a temporary database", "utc") as url:
        in_utc = create_engine(url, connect_args={"options": "-c timezone=UTC"})
        plain = Side(in_utc, Plain, dump(PlainItem))
        ours = Side(pin_utc(create_engine(url)), Ours, dump(OurItem))
        Base.metadata.create_all(ours.engine)
        for side in (plain, ours):
            with side.engine.begin() as connection:
                connection.execute(insert(side.model), VALUES)
                connection.execute(text("ANALYZE"))
        # Each side is the first one in half of the runs.
        for first, second in take_turns([(plain, ours), (ours, plain)], runs):
            for name, work in WORK.items():
                for side in (first, second):
                    measured[name, side].append(timed(work, side))
        plain.engine.dispose()
        ours.engine.dispose()
    rows = []
    for name in WORK:
        sides = measured[name, plain][1:], measured[name, ours][1:]  # the first one warmed up
        # The ratio within a run, since the machine's load changes between runs.
        ratio = median(our / other for other, our in zip(*sides, strict=True))
        figures = [f"{median(side) * 1e3:.3f} ms" for side in sides]
        rows.append([name, *figures, f"{ratio:.2f}"])
    title = f"UTC timestamps compared with plain ones: {ROWS:,} rows of two"
    print_table(title, ("", "plain", "ours", "ratio"), rows)
