"""The proof's report, for a person."""

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from backend.utc.proof import Report
from backend.utc.proof.reads import READS
from backend.utc.proof.writes import WRITES

COMMAND = "nox -s utc_check --"

# What a column's heading has room for.
_SHORT = {"binary-cursor": "cursor\nbinary", "binary-copy": "copy\nbinary", "other-client": "other\nclient"}
_READINGS = {
    "stored": "PostgreSQL has it, to the microsecond",
    "http": "HTTP API",
    "orm-midway": "orm, the zone SET LOCAL midway",
    "core-midway": "core, the zone SET LOCAL midway",
    "cursor-midway": "cursor, the zone SET LOCAL midway",
    "copy-midway": "copy, the zone SET LOCAL midway",
    "rendered": "PostgreSQL's own ::text",
    "unpinned": "orm on an engine nobody pinned",
}
_GROUPS = {
    "session": "sessions stay in UTC, and are mended where a user of the pool moved them",
    "refused": "what is no instant is refused at every door before it is sent",
    "normalised": "an attribute is UTC as soon as it is set",
    "grammar": "requests are RFC 3339 with an offset, responses have 27 characters",
    "openapi": "the API's schema says so of every timestamp",
    "range": "no client can store what another cannot show",
    "trigger": "created_at stays and updated_at moves, whoever writes",
    "clock": "one clock, PostgreSQL's, for every row that the API makes or changes",
    "lint": "no column, of models or tables, could hold a wrong time",
}


def print_report(console: Console, report: Report, place: str) -> None:
    """Print what was proved, what was not and how to try it again, and what else is remarkable on the server."""
    console.print()
    console.print(Text.assemble(("No wrong time", "bold"), f": proved on {place}"))
    console.print(
        f"Sessions moved to {', '.join(report.zones)}; seed {report.seed}"
        + (f"; only {report.only}" if report.only else "")
    )
    _print_matrix(console, report)
    _print_groups(console, report)
    _print_observations(console, report)
    _print_failures(console, report)
    _print_verdict(console, report)


def _print_matrix(console: Console, report: Report) -> None:
    writes = [
        name for name in ("http", *WRITES) if any(path.startswith(f"{name}/") for path in report.checks)
    ]
    if not writes:
        return
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Written by, read by: each cell is a path",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("read by", vertical="bottom")
    for name in writes:
        table.add_column(_SHORT.get(name, name), justify="center", vertical="bottom")
    for read in ("stored", *READS):
        if any(f"{write}/{read}" in report.checks for write in writes):
            table.add_row(_READINGS.get(read, read), *(_cell(report, f"{write}/{read}") for write in writes))
    console.print(table)


def _cell(report: Report, path: str) -> Text:
    if failed := report.failed[path]:
        return Text(str(failed), "bold red")
    return Text("✓", "green") if report.checks[path] else Text("·", "dim")


def _print_groups(console: Console, report: Report) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for group, promise in _GROUPS.items():
        paths = [path for path in report.checks if path.startswith(f"{group}/")]
        checks, failed = (
            sum(report.checks[path] for path in paths),
            sum(report.failed[path] for path in paths),
        )
        if checks:
            mark = Text(f"{failed} failed", "bold red") if failed else Text("✓", "green")
            table.add_row(promise, f"{checks:,}", mark)
    if table.row_count:
        console.print(table)


def _print_observations(console: Console, report: Report) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, title="This server", title_justify="left")
    for observation in report.observations:
        style = "yellow" if observation.is_remarkable else "dim"
        table.add_row(Text(observation.name, "dim"), Text(observation.text, style))
    console.print(Padding(table, (0, 0, 1, 0)))


def _print_failures(console: Console, report: Report) -> None:
    for path in dict.fromkeys(failure.path for failure in report.failures):
        found = [failure for failure in report.failures if failure.path == path]
        console.print(Text(f"✗ {path}: {report.failed[path]:,} of {report.checks[path]:,}", "bold red"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for failure in found:
            table.add_row(Text(failure.subject), Text(failure.value, "bold"))
            if failure.stored:
                table.add_row(Text("stored", "dim"), Text(failure.stored))
            table.add_row(Text("seen", "dim"), Text(failure.seen))
        console.print(table)
        console.print(Text.assemble("  again: ", (f"{COMMAND} --seed {report.seed} --only '{path}'", "cyan")))
        console.print()


def _print_verdict(console: Console, report: Report) -> None:
    said = f"{report.total:,} checks on {len(report.checks)} paths in {report.seconds:.1f} s"
    if report.is_proved:
        console.print(Text.assemble(("PROVED", "bold green"), f": {said}, and no wrong time."))
    elif not report.total:
        console.print(Text.assemble(("NOTHING CHECKED", "bold red"), f": no path is called {report.only}."))
    else:
        wrong = f"{report.failed.total():,} wrong on {len(report.failed)} paths"
        console.print(Text.assemble(("NOT PROVED", "bold red"), f": {said}, {wrong}."))
