"""The table at the end, and what differs between the combinations: nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from .outcomes import BAD, Row, differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rich.console import Console

    from .combinations import Combination


def show_list(console: Console, listed: Iterable[tuple[Combination, str | None]]) -> None:
    table = _table("PostgreSQL", "Python", "here")
    for combination, absence in listed:
        here = Text(f"not here: {absence}", "yellow") if absence else Text("yes", "green")
        table.add_row(combination.server, combination.python, here)
    console.print(table)


def show(console: Console, rows: Sequence[Row], logs: Path) -> None:
    console.print(results(rows))
    compared = [row for row in rows if row.outcomes]
    for line in compare(compared):
        console.print(line, soft_wrap=True)
    for row in rows:
        if row.exit_code:
            log = logs / f"{row.combination.file_name}.log"
            console.print(Text(f"What {row.combination.name} said is in {log}", "dim"), soft_wrap=True)


def results(rows: Sequence[Row]) -> Table:
    table = _table("PostgreSQL", "Python", "passed", "failed", "skipped", "seconds", "exit")
    for row in rows:
        where = (row.combination.server, row.combination.python)
        if not row.ran:
            table.add_row(*where, "", "", "", "", Text(f"not here: {row.absence}", "yellow"))
            continue
        failed = row.count(*BAD)
        table.add_row(
            *where,
            f"{row.count('passed', 'xfailed'):,}",
            Text(f"{failed:,}", "bold red" if failed else ""),
            f"{row.count('skipped'):,}",
            f"{row.seconds:.1f}",
            Text(f"{row.exit_code}", "bold red" if row.exit_code else "green"),
        )
    return table


def compare(rows: Sequence[Row]) -> list[Text]:
    """Return the lines that say what differs between these rows; identical outcomes are one line."""
    if not rows:
        return [Text("No combination has outcomes to compare.")]
    differing = differences(rows)
    lines = []
    for difference in differing:
        lines.append(Text(difference.test, "bold"))
        for outcome in sorted(set(difference.outcomes)):
            where = [
                row.combination.name
                for row, had in zip(rows, difference.outcomes, strict=True)
                if had == outcome
            ]
            style = "red" if outcome in BAD else ""
            lines.append(Text.assemble("  ", (f"{outcome:8}", style), "; ".join(where)))
    same = {name for row in rows for name in row.outcomes} - {difference.test for difference in differing}
    everywhere = (
        f"in all {len(rows)} combinations" if len(rows) > 1 else "in the one combination that could be run"
    )
    told = f"{_tests(len(differing))} above; " if differing else "Nothing differs: "
    lines.append(Text(f"{told}{_tests(len(same))} with one outcome {everywhere}."))
    failing = sorted(name for name in same if rows[0].outcomes[name] in BAD)
    if failing:
        lines.append(Text(f"Failed {everywhere}:", "red"))
        lines += [Text(f"  {name}") for name in failing]
    return lines


def _tests(number: int) -> str:
    return f"{number:,} {'test' if number == 1 else 'tests'}"


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        is_number = heading in ("passed", "failed", "skipped", "seconds")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=heading != "exit")
    return table
