"""The report of a proof, for a person."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from devtools.utc_check.crossing import HTTP, STORED
from devtools.utc_check.paths import READS, WRITES
from devtools.utc_check.proof_report import Report

# A column has four characters, so that the table fits a terminal of 80.
_SHORT = {
    "orm-bulk": "orm\nbulk",
    "orm-update": "orm\nupd.",
    "cursor": "cur-\nsor",
    "binary-cursor": "bin.\ncur.",
    "binary-copy": "bin.\ncopy",
    "plain": "psql",
    "unpinned": "un-\npin.",
}
_LEGEND = (
    "stored: what PostgreSQL has, in whole microseconds. set-local: after SET LOCAL timezone in the same transaction. "
    "rendered: PostgreSQL's ::text. upd.: assigned over the other side of a fold. psql: a client with nothing of ours. "
    "unpinned: an engine with only our models. What the API writes is the database's clock."
)
_GROUPS = {
    "session": "sessions are in UTC, and repaired after somebody changed them",
    "refused": "naive datetimes and the like are refused before they are sent",
    "converted": "an attribute is in UTC as soon as it is set",
    "grammar": "requests are RFC 3339 with an offset, responses have 27 characters",
    "openapi": "the API declares every time as such",
    "range": "no client can store what another cannot read",
    "trigger": "created_at stays and updated_at increases, whoever writes",
    "clock": "rows that the API creates have one time, of the database's clock",
    "lint": "no column of models or tables could hold a wrong time",
}


def print_report(console: Console, report: Report, database: str) -> None:
    """Print what was proved, what failed and how to repeat it, and the verdict."""
    version, zone, style = report.server.values()
    only = f", only {', '.join(report.only)}" if report.only else ""
    console.print()
    console.print(Text.assemble(("No layer stores or shows a wrong time", "bold"), f": tried on {database}"))
    console.print(
        f"PostgreSQL {version.partition(' ')[0]}, which starts sessions in {zone}, {style}", style="dim"
    )
    console.print(f"sessions moved to {', '.join(report.zones)}", style="dim")
    console.print(f"seed {report.seed}{only}", style="dim")
    _print_matrix(console, report)
    _print_groups(console, report)
    _print_failures(console, report)
    _print_verdict(console, report)


def _print_matrix(console: Console, report: Report) -> None:
    writes = [name for name in (HTTP, *WRITES) if any(path.startswith(f"{name}/") for path in report.checks)]
    if not writes:
        return console.print()
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("    written →\nread ↓", vertical="bottom", no_wrap=True)
    for name in writes:
        table.add_column(_SHORT.get(name, name), justify="center", vertical="bottom", min_width=4)
    for read in (STORED, *READS):
        if any(f"{write}/{read}" in report.checks for write in writes):
            table.add_row(read, *(_cell(report, f"{write}/{read}") for write in writes))
    console.print(table)
    return console.print(f"{_LEGEND}\n", style="dim")


def _cell(report: Report, path: str) -> Text:
    if failed := report.failed[path]:
        return Text(f"{min(failed, 9999)}", "bold red")
    return Text("✓", "green") if report.checks[path] else Text("·", "dim")


def _print_groups(console: Console, report: Report) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for group, promise in _GROUPS.items():
        checks, failed = (
            sum(number for path, number in counted.items() if path.startswith(f"{group}/"))
            for counted in (report.checks, report.failed)
        )
        mark = Text(f"{failed} failed", "bold red") if failed else Text("✓", "green")
        if checks:
            table.add_row(promise, Text(f"{checks:,}", justify="right"), mark)
    console.print(table, "")


def _print_failures(console: Console, report: Report) -> None:
    for path, failed in report.failed.items():
        console.print(Text(f"✗ {path}: {failed:,} of {report.checks[path]:,}", "bold red"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for failure in (failure for failure in report.failures if failure.path == path):
            table.add_row(Text(failure.subject), Text(failure.value, "bold"))
            if failure.stored:
                table.add_row(Text("stored", "dim"), Text(failure.stored))
            table.add_row(Text("seen", "dim"), Text(failure.seen))
        again = f"nox -s utc_check -- --seed {report.seed} --only {path}"
        console.print(table, Text.assemble("  again: ", (again, "cyan")), "", sep="\n")


def _print_verdict(console: Console, report: Report) -> None:
    summary = f"{report.checks.total():,} checks on {len(report.checks)} paths in {report.seconds:.1f} s"
    if report.is_proved:
        console.print(Text.assemble(("PROVED", "bold green"), f": {summary}, and no wrong time."))
    elif not report.failed:
        console.print(
            Text.assemble(("NOTHING CHECKED", "bold red"), f": no path is {' or '.join(report.only)}.")
        )
    else:
        wrong = f"{report.failed.total():,} wrong on {len(report.failed)} paths"
        console.print(Text.assemble(("NOT PROVED", "bold red"), f": {summary}, {wrong}."))
