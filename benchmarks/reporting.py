"""What the benchmarks share: taking turns, and printing a table."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import rich
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

Item = TypeVar("Item")


def take_turns(items: Sequence[Item], runs: int) -> Iterable[Item]:
    """Yield all items once in each run, because a machine's speed varies over time, and show the progress."""
    turns = [item for _ in range(runs) for item in items]
    return track(turns, "Measuring", console=Console(stderr=True), transient=True)


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*headings, title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    rich.print(table)
