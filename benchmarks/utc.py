"""What instants cost beside plain `DateTime(timezone=True)` in a session that is in UTC by itself."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import FastAPI
from pydantic import TypeAdapter
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine, TableClause, create_engine, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Session

import freshpg
from backend.utc import pin_utc
from benchmarks.utc_twins import (
    ITEMS,
    ROWS,
    VALUES,
    WRITTEN,
    GuardedBase,
    Ours,
    Plain,
    PlainBase,
    PlainItem,
    UtcItem,
)
from devtools.utc_check.application import Client

CHECKOUTS = 5_000


@dataclass
class Measure:
    """Something that is done by both, in turns; `most` is the largest ratio promised, or difference in seconds."""

    name: str
    most: float | None
    plain: Callable[[], object]
    ours: Callable[[], object]
    is_difference: bool = False
    times: int = 1
    """How often the thing is done in a run."""
    seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def run(self, *, plain_first: bool) -> None:
        sides = [(self.plain, self.seconds[0]), (self.ours, self.seconds[1])]
        for do, taken in sides if plain_first else reversed(sides):
            # A collection of what the other side left would be paid by this one.
            gc.collect()
            gc.disable()
            began = time.perf_counter()
            do()
            taken.append((time.perf_counter() - began) / self.times)
            gc.enable()

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.seconds[0]), statistics.median(self.seconds[1])

    @property
    def result(self) -> float:
        """The median of what neighbours in time differ by: the machine's moods are the same for both."""
        pairs = zip(*self.seconds, strict=True)
        if self.is_difference:
            return statistics.median(ours - plain for plain, ours in pairs)
        return statistics.median(ours / plain for plain, ours in pairs)


def main(runs: int) -> None:
    with freshpg.choose("auto").start() as server, Client(make_app()) as client:
        url = freshpg.sqlalchemy_url(server.url)
        plain = create_engine(url, connect_args={"options": "-c timezone=UTC"})
        ours = pin_utc(create_engine(url))
        prepare(plain)
        measures = [*database_measures(plain, ours), *json_measures(client)]
        for measure in measures:
            measure.run(plain_first=True)
            measure.seconds[0].clear()
            measure.seconds[1].clear()
        for number in track(range(runs * 2), "Measuring", console=Console(stderr=True), transient=True):
            for measure in measures:
                measure.run(plain_first=number % 2 == 0)
        plain.dispose()
        ours.dispose()
    show(measures, runs * 2, server.version)


def prepare(engine: Engine) -> None:
    for metadata in (PlainBase.metadata, WRITTEN[0].metadata, GuardedBase.metadata):
        metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Plain), VALUES)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE instants"))


def database_measures(plain: Engine, ours: Engine) -> list[Measure]:
    written, our_written = WRITTEN
    guarded = GuardedBase.metadata.tables["guarded"]
    return [
        Measure("ORM read", 1.03, lambda: orm_read(plain, Plain), lambda: orm_read(ours, Ours)),
        Measure("Core read", 1.10, lambda: core_read(plain, Plain), lambda: core_read(ours, Ours)),
        Measure(
            "bulk write", 1.20, lambda: bulk_write(plain, written), lambda: bulk_write(ours, our_written)
        ),
        Measure(
            "bulk write, CHECKs too",
            None,
            lambda: bulk_write(plain, written),
            lambda: bulk_write(ours, guarded),
        ),
        Measure(
            "checkout",
            5e-6,
            lambda: check_out(plain),
            lambda: check_out(ours),
            is_difference=True,
            times=CHECKOUTS,
        ),
    ]


def orm_read(engine: Engine, model: type[DeclarativeBase]) -> None:
    with Session(engine) as session:
        session.scalars(select(model)).all()


def core_read(engine: Engine, model: type[DeclarativeBase]) -> None:
    columns = model.__table__.c
    with engine.connect() as connection:
        connection.execute(select(columns["one"], columns["other"])).all()


def bulk_write(engine: Engine, table: TableClause) -> None:
    with engine.connect() as connection:
        # On new pages each time: what was rolled back before would be in the way of some and not of others.
        connection.execute(text(f"TRUNCATE {table.name}"))
        connection.execute(insert(table), VALUES)
        connection.rollback()


def check_out(engine: Engine) -> None:
    for _ in range(CHECKOUTS):
        engine.raw_connection().close()


def json_measures(client: Client) -> list[Measure]:
    plain, ours = TypeAdapter(list[PlainItem]), TypeAdapter(list[UtcItem])
    plain_items = plain.validate_python(ITEMS, from_attributes=True)
    our_items = ours.validate_python(ITEMS, from_attributes=True)
    return [
        Measure(
            f"response of {len(ITEMS):,} rows",
            1.30,
            lambda: client.send("GET", "/plain"),
            lambda: client.send("GET", "/utc"),
        ),
        Measure(
            "its JSON alone", None, lambda: plain.dump_json(plain_items), lambda: ours.dump_json(our_items)
        ),
    ]


def make_app() -> FastAPI:
    """Make an application that answers as ours does: rows to a model, and the model to JSON."""
    app = FastAPI(openapi_url=None)

    @app.get("/plain")
    def plain() -> list[PlainItem]:
        return [PlainItem.model_validate(item) for item in ITEMS]

    @app.get("/utc")
    def utc() -> list[UtcItem]:
        return [UtcItem.model_validate(item) for item in ITEMS]

    return app


def show(measures: list[Measure], runs: int, version: str) -> None:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Instants beside plain timestamps: {ROWS:,} rows of two, {runs} runs in turns, PostgreSQL {version}",
        title_justify="left",
    )
    for heading in ("", "plain", "ours", "cost", "at most", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for measure in measures:
        unit, factor = ("µs", 1e6) if measure.is_difference else ("ms", 1e3)
        middles = (f"{middle * factor:.1f} {unit}" for middle in measure.medians)
        most = "" if measure.most is None else written(measure, measure.most)
        verdict = Text("")
        if measure.most is not None:
            verdict = Text("✓", "green") if measure.result <= measure.most else Text("over", "bold red")
        table.add_row(measure.name, *middles, written(measure, measure.result), most, verdict)
    Console().print(table)


def written(measure: Measure, cost: float) -> str:
    return f"{cost * 1e6:+.1f} µs" if measure.is_difference else f"{cost:.2f}"
