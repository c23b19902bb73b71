"""The outcome of a proof, and the page that shows it."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from devtools.utc_check.cases import show

HTTP, STORED = "http", "stored"
EXAMPLES = 3
"""Failures kept for each path. The others are only counted, since a broken defence fails thousands of values."""
# By the first part of a path.
_PROMISES = {
    "session": "sessions are in UTC, and repaired after somebody changed them",
    "refused": "naive datetimes and other invalid values are refused before they are sent",
    "range": "no client can store what another cannot read",
    "clock": "rows that the API creates have one time, from the database's clock",
    "lint": "no column of models or tables could hold a wrong time",
}
# Headings of four characters, so that the table fits a terminal of 80.
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
    "stored: the microseconds in PostgreSQL. set-local: after SET LOCAL timezone in the same transaction. "
    "rendered: PostgreSQL's ::text. upd.: assigned over the other side of a fold. psql: a client without our code. "
    "unpinned: an engine with only our models. The API's timestamps come from the database's clock.\n"
)


@dataclass(frozen=True)
class Failure:
    """A wrong time."""

    path: str
    """The argument of `--only` that repeats it: `copy/orm` for rows written by COPY and read by the ORM."""
    subject: str
    value: str
    seen: str
    stored: str
    """The microseconds since 1970 that PostgreSQL has stored, if there is a row."""


@dataclass
class Report:
    """The number of checks and of failures, by path."""

    seed: int
    zones: tuple[str, ...]
    only: tuple[str, ...] = ()
    server: dict[str, str] = field(default_factory=dict)
    """Its server_version, and the TimeZone and DateStyle in which it starts sessions."""
    checks: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_proved(self) -> bool:
        return not self.failed and self.checks.total() > 0

    def wants(self, *paths: str) -> bool:
        """Whether to try one of these: each of `only` is a path, the first part of paths, or a pattern with `*`."""
        return not self.only or any(
            path == only or path.startswith(f"{only}/") or fnmatchcase(path, only)
            for path in paths
            for only in self.only
        )

    def check(
        self, path: str, subject: str, value: object, *, ok: bool, seen: object, stored: int | None = None
    ) -> None:
        """Count a check, and record a failure unless it is ok. A path that `only` excludes is ignored."""
        if self.wants(path):
            self.checks[path] += 1
            if not ok:
                self.fail(path, subject, value, seen, stored)

    def fail(self, path: str, subject: str, value: object, seen: object, stored: int | None = None) -> None:
        """Record a failure, whatever `only` says."""
        self.failed[path] += 1
        if self.failed[path] <= EXAMPLES:
            shown = f"{seen.isoformat()} in {seen.tzinfo}" if isinstance(seen, datetime) else str(seen)
            number = "" if stored is None else show(stored)
            self.failures.append(Failure(path, subject, str(value), shown, number))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dict that can be written as JSON."""
        totals = {"checks": self.checks.total(), "failed": self.failed.total()}
        paths = {
            path: {"checks": self.checks[path], "failed": self.failed[path]}
            for path in sorted(self.checks | self.failed)
        }
        return {"proved": self.is_proved} | asdict(self) | totals | {"paths": paths}


def print_report(console: Console, report: Report, database: str) -> None:
    """Print the results, the failures with the commands that repeat them, and the verdict."""
    version, zone, style = report.server.values()
    only = f", only {', '.join(report.only)}" if report.only else ""
    console.print(
        Text.assemble("\n", ("No layer stores or shows a wrong time", "bold"), f": tried on {database}")
    )
    console.print(
        f"PostgreSQL {version.partition(' ')[0]}, which starts sessions in {zone}, {style}\n"
        f"sessions moved to {', '.join(report.zones)}\nseed {report.seed}{only}",
        style="dim",
    )
    _print_matrix(console, report)
    _print_promises(console, report)
    for path in report.failed:
        _print_failures(console, report, path)
    console.print(_verdict(report))


def _print_matrix(console: Console, report: Report) -> None:
    """Print a table with a column for each way to write and a row for each way to read."""
    crossed = [path.split("/") for path in report.checks if path.split("/")[0] not in _PROMISES]
    writes = dict.fromkeys(write for write, _ in crossed)
    if not writes:
        return console.print()
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("    written →\nread ↓", vertical="bottom", no_wrap=True)
    for name in writes:
        table.add_column(_SHORT.get(name, name), justify="center", vertical="bottom", min_width=4)
    for read in dict.fromkeys(read for _, read in crossed):
        table.add_row(read, *(_cell(report, f"{write}/{read}") for write in writes))
    console.print(table)
    return console.print(_LEGEND, style="dim")


def _cell(report: Report, path: str) -> Text:
    if failed := report.failed[path]:
        return Text(f"{min(failed, 9999)}", "bold red")
    return Text("✓", "green") if report.checks[path] else Text("·", "dim")


def _print_promises(console: Console, report: Report) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for group, promise in _PROMISES.items():
        checks, failed = (
            sum(number for path, number in counted.items() if path.startswith(f"{group}/"))
            for counted in (report.checks, report.failed)
        )
        mark = Text(f"{failed} failed", "bold red") if failed else Text("✓", "green")
        if checks:
            table.add_row(promise, Text(f"{checks:,}", justify="right"), mark)
    console.print(table, "")


def _print_failures(console: Console, report: Report, path: str) -> None:
    console.print(Text(f"✗ {path}: {report.failed[path]:,} of {report.checks[path]:,}", "bold red"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for failure in (failure for failure in report.failures if failure.path == path):
        table.add_row(Text(failure.subject), Text(failure.value, "bold"))
        if failure.stored:
            table.add_row(Text("stored", "dim"), Text(failure.stored))
        table.add_row(Text("seen", "dim"), Text(failure.seen))
    again = f"nox -s utc_check -- --seed {report.seed} --only {path}"
    console.print(table, Text.assemble("  again: ", (again, "cyan")), "", sep="\n")


def _verdict(report: Report) -> Text:
    summary = f"{report.checks.total():,} checks on {len(report.checks)} paths in {report.seconds:.1f} s"
    if report.is_proved:
        return Text.assemble(("PROVED", "bold green"), f": {summary}, and no wrong time.")
    if not report.failed:
        return Text.assemble(
            ("NOTHING CHECKED", "bold red"), f": no path matches {' or '.join(report.only)}."
        )
    wrong = f"{report.failed.total():,} wrong on {len(report.failed)} paths"
    return Text.assemble(("NOT PROVED", "bold red"), f": {summary}, {wrong}.")
