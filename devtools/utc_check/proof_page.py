"""The proof's report, for a person."""

from fnmatch import fnmatchcase

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from devtools.utc_check import ZONES, Failure, Report
from devtools.utc_check.reads import READS
from devtools.utc_check.report import EXAMPLES
from devtools.utc_check.writes import WRITES

COMMAND = "nox -s utc_check --"
THOUSAND = 1000

# A column is four characters wide, so that the table fits a terminal.
_SHORT = {
    "bulk": "orm\nbulk",
    "update": "orm\nupd.",
    "cursor": "cur-\nsor",
    "binary-cursor": "cur.\nbin.",
    "binary-copy": "copy\nbin.",
    "other-client": "psql",
    "unpinned": "not\npin.",
}
_LEGEND = (
    "stored: what PostgreSQL has, in whole microseconds. midway: the zone SET LOCAL in",
    "mid-transaction. rendered: PostgreSQL's ::text. upd.: the other side of a fold,",
    "assigned. psql: a client with nothing of ours. unpinned: an engine with our models",
    "alone. What the API writes is PostgreSQL's clock.",
)
_GROUPS = {
    "session": "sessions are in UTC, and mended where a user of the pool moved them",
    "refused": "what is no instant is refused at every door before it is sent",
    "normalised": "an attribute is UTC as soon as it is set",
    "grammar": "requests are RFC 3339 with an offset, responses have 27 characters",
    "openapi": "the API's schema says so of every timestamp",
    "range": "no client can store what another cannot show",
    "trigger": "created_at stays and updated_at moves, whoever writes",
    "clock": "one clock, PostgreSQL's, for rows that the API makes or changes",
    "lint": "no column, of models or tables, could hold a wrong time",
}


def print_report(console: Console, report: Report, place: str) -> None:
    """Print what was proved, what was not and how to try it again, and what else is remarkable on the server."""
    console.print()
    console.print(Text.assemble(("No layer stores or shows a wrong time", "bold"), f": tried on {place}"))
    console.print(Text(f"sessions moved to {', '.join(report.zones)}", "dim"))
    console.print(Text(f"seed {report.seed}" + (f", only {report.only}" if report.only else ""), "dim"))
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
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    table.add_column("    written →\nread ↓", vertical="bottom", no_wrap=True)
    for name in writes:
        table.add_column(_SHORT.get(name, name), justify="center", vertical="bottom", no_wrap=True)
    for read in ("stored", *READS):
        if any(f"{write}/{read}" in report.checks for write in writes):
            table.add_row(read, *(_cell(report, f"{write}/{read}") for write in writes))
    console.print(table)
    for line in _LEGEND:
        console.print(Text(line, "dim"))
    console.print()


def _cell(report: Report, path: str) -> Text:
    if failed := report.failed[path]:
        return Text(str(failed) if failed < THOUSAND else f"{failed // THOUSAND}k", "bold red")
    return Text("✓", "green") if report.checks[path] else Text("·", "dim")


def _print_groups(console: Console, report: Report) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
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
        console.print()


def _print_observations(console: Console, report: Report) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, title="This server", title_justify="left")
    for observation in report.observations:
        style = "yellow" if observation.is_remarkable else "dim"
        table.add_row(Text(observation.name, "dim"), Text(observation.text, style))
    console.print(Padding(table, (0, 0, 1, 0)))


def _print_failures(console: Console, report: Report) -> None:
    for pattern, found in _grouped(report).items():
        paths = {failure.path for failure in report.failures if fnmatchcase(failure.path, pattern)}
        failed, checks = (sum(counted[path] for path in paths) for counted in (report.failed, report.checks))
        where = f" on {len(paths)} paths" if len(paths) > 1 else ""
        console.print(Text(f"✗ {pattern}: {failed:,} of {checks:,}{where}", "bold red"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for failure in found:
            table.add_row(Text(failure.subject), Text(failure.value, "bold"))
            if failure.stored:
                table.add_row(Text("stored", "dim"), Text(failure.stored))
            table.add_row(Text("seen", "dim"), Text(failure.seen))
        console.print(table)
        again = f"{COMMAND} --seed {report.seed}{_zones(report)} --only '{pattern}'"
        console.print(Text.assemble("  again: ", (again, "cyan")))
        console.print()


def _grouped(report: Report) -> dict[str, list[Failure]]:
    """Return the failures by path; what is wrong in one way to read, whoever wrote, is shown once."""
    writers: dict[str, set[str]] = {}
    for failure in report.failures:
        write, _, read = failure.path.partition("/")
        writers.setdefault(read, set()).add(write)
    groups: dict[str, list[Failure]] = {}
    for failure in report.failures:
        read = failure.path.partition("/")[2]
        pattern = f"*/{read}" if read in READS and len(writers[read]) > 1 else failure.path
        groups.setdefault(pattern, []).append(failure)
    return {pattern: found[:EXAMPLES] for pattern, found in groups.items()}


def _zones(report: Report) -> str:
    return "" if report.zones == ZONES else "".join(f" --zone {zone}" for zone in report.zones)


def _print_verdict(console: Console, report: Report) -> None:
    said = f"{report.total:,} checks on {len(report.checks)} paths in {report.seconds:.1f} s"
    if report.is_proved:
        console.print(Text.assemble(("PROVED", "bold green"), f": {said}, and no wrong time."))
    elif not report.total:
        console.print(Text.assemble(("NOTHING CHECKED", "bold red"), f": no path is called {report.only}."))
    else:
        wrong = f"{report.failed.total():,} wrong on {len(report.failed)} paths"
        console.print(Text.assemble(("NOT PROVED", "bold red"), f": {said}, {wrong}."))
