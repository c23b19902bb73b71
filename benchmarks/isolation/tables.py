"""The tables that a person reads, in a terminal of 80 columns too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from .figures import Boot, Figures, Verdict

CAPTION = (
    "adds: what a test takes more than the same test on the same server, by one Engine and with no isolation at "
    "all; around: before and after the test, over an empty one; of ours: the mean beside ours that commits, on the "
    "same kind of server; run: its whole process, with the server's boot and its end. Medians over the runs."
)
BOOT_CAPTION = "In fresh processes, caches warm; imports, and the interpreter's own start, are not in it."


def show(console: Console, facts: dict[str, Any], figures: Sequence[Figures], boots: Sequence[Boot]) -> None:
    isolated = [each for each in figures if each.isolation_p50 is not None]
    waits = [each for each in figures if each.isolation_p50 is None]
    if isolated:
        console.print(isolation_table(facts, isolated))
    if waits:
        console.print(wait_table(waits))
    if boots:
        console.print(boot_table(boots))


def isolation_table(facts: dict[str, Any], figures: Sequence[Figures]) -> Table:
    runs = "1 run" if facts["runs"] == 1 else f"{facts['runs']} runs in turns"
    title = (
        f"{facts['tests']} tests, each a row in six tables by the ORM and a commit\n"
        f"milliseconds a test, {runs}, PostgreSQL {facts['postgres']}"
    )
    table = _table(title, CAPTION)
    table.add_column("", no_wrap=True)
    for heading in ("adds\np50", "\np95", "\nmean", "around\np50", "share", "of\nours", "run\ns"):
        table.add_column(heading, justify="right", no_wrap=True)
    for docker in (False, True):
        group = [figure for figure in figures if figure.docker is docker]
        if group:
            table.add_row(Text("in Docker" if docker else "embedded", "italic dim"))
        for each in group:
            table.add_row(
                Text(each.name, "bold green" if each.ours else ""),
                *(three_digits(value) for value in (each.isolation_p50, each.isolation_p95)),
                *(three_digits(value) for value in (each.isolation_mean, each.around_p50)),
                "" if each.share is None else f"{each.share:.0%}",
                "" if each.times_ours is None else f"{each.times_ours:.1f}",
                three_digits(each.run_seconds),
            )
    return table


def wait_table(figures: Sequence[Figures]) -> Table:
    table = _table("A clone's wait: ms in the fixture before the test", None)
    table.add_column("")
    for heading in ("p50", "p95", "a test, p50"):
        table.add_column(heading, justify="right")
    for each in figures:
        table.add_row(
            each.name, *(three_digits(value) for value in (each.wait_p50, each.wait_p95, each.test_p50))
        )
    return table


def boot_table(boots: Sequence[Boot]) -> Table:
    table = _table("Boot to the answer to a first query: seconds", BOOT_CAPTION)
    table.add_column("")
    for heading in ("median", "least", "most", "imports", "of docker run"):
        table.add_column(heading, justify="right")
    for each in boots:
        name = Text(each.name, "bold green" if each.name.startswith("ours") else "")
        seconds = (f"{value:.2f}" for value in (each.median, each.least, each.most, each.imports))
        table.add_row(name, *seconds, "" if each.of_docker_run is None else f"{each.of_docker_run:.2f}")
    return table


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    table = _table("What is promised", None)
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("promised", justify="right")
    table.add_column("")
    for each in verdicts:
        bound = f"{'≥' if each.at_least else '≤'} {each.bound:g} {each.unit}"
        verdict = Text("✓", "green") if each.holds else Text("not reached", "bold red")
        table.add_row(each.promise, f"{each.figure:.2f} {each.unit}", bound, verdict)
    return table


def three_digits(value: float | None) -> str:
    if value is None:
        return ""
    digits = next((digits for digits, bound in ((2, 10), (1, 100)) if abs(value) < bound), 0)
    return f"{value:.{digits}f}"


def _table(title: str, caption: str | None) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
    )
