"""The cost of UTC timestamps, compared with plain `DateTime(timezone=True)` in a session that is already in UTC."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, TypeAdapter
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import DateTime, Engine, create_engine, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import freshpg
from backend.utc import UtcDateTime, UtcField, guard_models, pin_utc

ROWS, ITEMS, CHECKOUTS = 20_000, 1_000, 1_000
START = datetime(2024, 1, 1, tzinfo=UTC)
VALUES = [
    {"one": START + timedelta(minutes=number), "other": START + timedelta(microseconds=number)}
    for number in range(ROWS)
]


class PlainBase(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012 - SQLAlchemy's declaration


class OurBase(DeclarativeBase):
    type_annotation_map = {datetime: UtcDateTime()}  # noqa: RUF012 - SQLAlchemy's declaration


class Plain(PlainBase):
    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True)
    one: Mapped[datetime]
    other: Mapped[datetime]


class Ours(OurBase):
    __tablename__ = "ours"

    id: Mapped[int] = mapped_column(primary_key=True)
    one: Mapped[datetime]
    other: Mapped[datetime]


guard_models(OurBase)


class PlainItem(BaseModel):
    one: datetime
    other: datetime


class OurItem(BaseModel):
    one: UtcField
    other: UtcField


@dataclass
class Measure:
    """The same work, done in two ways, in turns."""

    name: str
    most: float
    """The largest ratio that we promise."""
    plain: Callable[[], object]
    ours: Callable[[], object]
    seconds: list[tuple[float, float]] = field(default_factory=list)

    def run(self, number: int) -> None:
        if number % 2:
            ours, plain = _time(self.ours), _time(self.plain)
        else:
            plain, ours = _time(self.plain), _time(self.ours)
        self.seconds.append((plain, ours))

    @property
    def ratio(self) -> float:
        """The median of the ratios within a run, since the machine's load changes between runs."""
        return statistics.median(ours / plain for plain, ours in self.seconds)


def _time(work: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    work()
    taken = time.perf_counter() - began
    gc.enable()
    return taken


def read_orm(engine: Engine, model: type[DeclarativeBase]) -> None:
    with Session(engine) as session:
        session.scalars(select(model)).all()


def read_core(engine: Engine, model: type[DeclarativeBase]) -> None:
    with engine.connect() as connection:
        connection.execute(select(*model.__table__.c)).all()


def write(engine: Engine, model: type[DeclarativeBase]) -> None:
    with engine.connect() as connection:
        connection.execute(text(f"TRUNCATE {model.__tablename__} RESTART IDENTITY"))
        connection.execute(insert(model.__table__), VALUES)  # type: ignore[arg-type]  # it is a table
        connection.rollback()


def check_out(engine: Engine) -> None:
    for _ in range(CHECKOUTS):
        with engine.connect():
            pass


def measures(plain: Engine, ours: Engine) -> list[Measure]:
    plain_items, our_items = TypeAdapter(list[PlainItem]), TypeAdapter(list[OurItem])
    plain_list = plain_items.validate_python(VALUES[:ITEMS])
    our_list = our_items.validate_python(VALUES[:ITEMS])
    return [
        Measure("read by the ORM", 1.1, lambda: read_orm(plain, Plain), lambda: read_orm(ours, Ours)),
        Measure("read by Core", 1.1, lambda: read_core(plain, Plain), lambda: read_core(ours, Ours)),
        Measure("bulk write", 1.3, lambda: write(plain, Plain), lambda: write(ours, Ours)),
        Measure(f"{CHECKOUTS:,} checkouts", 1.3, lambda: check_out(plain), lambda: check_out(ours)),
        Measure(
            f"JSON of {ITEMS:,} rows",
            2.5,
            lambda: plain_items.dump_json(plain_list),
            lambda: our_items.dump_json(our_list),
        ),
    ]


def main(runs: int) -> None:
    with freshpg.choose("auto").start() as server:
        url = freshpg.sqlalchemy_url(server.url)
        plain = create_engine(url, connect_args={"options": "-c timezone=UTC"})
        ours = pin_utc(create_engine(url))
        for engine, base, model in ((plain, PlainBase, Plain), (ours, OurBase, Ours)):
            base.metadata.create_all(engine)
            with engine.begin() as connection:
                connection.execute(insert(model), VALUES)
                connection.execute(text("ANALYZE"))
        measured = measures(plain, ours)
        for number in track(range(runs * 2 + 1), "Measuring", console=Console(stderr=True), transient=True):
            for measure in measured:
                measure.run(number)
        plain.dispose()
        ours.dispose()
    show(measured, server.version)


def show(measured: list[Measure], version: str) -> None:
    title = f"UTC timestamps compared with plain ones: {ROWS:,} rows of two, PostgreSQL {version}"
    table = Table("", box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for heading in ("plain", "ours", "ratio", "promised"):
        table.add_column(heading, justify="right")
    for measure in measured:
        plain, ours = (statistics.median(side) * 1e3 for side in zip(*measure.seconds[1:], strict=True))
        color = "green" if measure.ratio <= measure.most else "bold red"
        ratio = f"[{color}]{measure.ratio:.2f}[/]"
        table.add_row(measure.name, f"{plain:.3f} ms", f"{ours:.3f} ms", ratio, f"{measure.most:.2f}")
    Console().print(table)
