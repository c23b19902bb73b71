"""How long a data set takes to be written, beside the same rows by INSERT, and a million entries of usage."""

import json
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Engine, insert, text
from sqlalchemy.dialects.postgresql import JSONB

import freshpg
from backend.database import connect, init_db
from backend.models.models import Base
from devtools.seeding.loading import NAMES, TABLES, seed, tidy
from devtools.seeding.plan import Plan

SMALL, LARGE = Plan(scale=50), Plan(scale=1000)
INSERTED, SEEDED = "by INSERT, a batch a table", "by db_seed, checked and tidied"
MOST = 30.0
"""Seconds for the large one."""

Rows = list[dict[str, object]]


def main(runs: int) -> None:
    seconds: dict[tuple[str, Plan], list[float]] = {}
    rows = {table.name: as_parameters(table.name) for table in TABLES}
    with freshpg.choose("auto").start() as server:
        engine = connect(freshpg.sqlalchemy_url(server.url))
        init_db(engine)
        for _ in track(range(runs), "Measuring", console=Console(stderr=True), transient=True):
            with timed(seconds.setdefault((INSERTED, SMALL), [])):
                write_by_insert(engine, rows)
            for plan in (SMALL, LARGE):
                with timed(seconds.setdefault((SEEDED, plan), [])):
                    seed(engine, plan, replace=True, advance=lambda _: None)
                    tidy(engine)
        engine.dispose()
    show(seconds, f"PostgreSQL {server.version}, {server.kind}")


def as_parameters(name: str) -> Rows:
    """Give a table's rows as SQLAlchemy takes them, without the key that the database makes."""
    [table] = [each for each in TABLES if each.name == name]
    columns = Base.metadata.tables[name].columns
    is_json = [isinstance(columns[column].type, JSONB) for column in table.columns]
    return [
        {
            column: json.loads(str(value)) if parse else value
            for column, value, parse in zip(table.columns, row, is_json, strict=True)
            if column != "id"
        }
        for row in table.rows(SMALL)
    ]


def write_by_insert(engine: Engine, rows: dict[str, Rows]) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {NAMES} RESTART IDENTITY"))
        for name, batch in rows.items():
            connection.execute(insert(Base.metadata.tables[name]), batch)


@contextmanager
def timed(results: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    results.append(time.perf_counter() - began)


def show(seconds: dict[tuple[str, Plan], list[float]], server: str) -> None:
    table = Table(title=f"Data sets: {platform.machine()}, {server}", title_justify="left")
    for column in ("what", "rows", "seconds", "a second", "µs a row", "to INSERT"):
        table.add_column(column, justify="left" if column == "what" else "right")
    unit = sum(each.count for each in TABLES)
    middles = {key: statistics.median(taken) for key, taken in seconds.items()}
    base = middles[INSERTED, SMALL] / SMALL.scale
    for (name, plan), middle in middles.items():
        rows = plan.scale * unit
        table.add_row(
            name, f"{rows:,}", f"{middle:.2f}", f"{rows / middle:,.0f}", f"{middle / rows * 1e6:.1f}",
            f"{middle / plan.scale / base:.2f}",
        )  # fmt: skip
    Console().print(table)
    large = middles[SEEDED, LARGE]
    Console().print(f"A million entries of usage take {large:.1f} s; at most {MOST:.0f} are promised.")
