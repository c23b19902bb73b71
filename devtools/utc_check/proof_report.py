"""The outcome of a proof, and the page that shows it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
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
    "stored: the microseconds in PostgreSQL. All other reads follow a SET LOCAL timezone. psql: a client without our "
    "code. unpinned: an engine with only our models. The API's timestamps come from the database's clock. "
    "·: does not apply.\n"
)


@dataclass(frozen=True)
class Failure:
    """A wrong time."""

    path: str
    """The argument of `--only` that repeats it: `copy/orm` for rows written by COPY and read by the ORM."""
    subject: str
    value: str
    seen: str
    stored: str = ""
    """The microseconds since 1970 that PostgreSQL has stored, if there is a row."""


@dataclass
class Report:
    """The number of checks and of failures, by path."""

    seed: int
    zones: tuple[str, ...]
    only: tuple[str, ...] = ()
    server: str = ""
    checks: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_proved(self) -> bool:
        return not self.failed and self.checks.total() > 0

    def wants(self, *paths: str) -> bool:
        """Whether to try one of these: each of `only` is a path, the first part of paths, or a pattern with `*`."""
        patterns = [pattern for only in self.only for pattern in (only, f"{only}/*")]
        return not patterns or any(fnmatchcase(path, pattern) for path in paths for pattern in patterns)

    def check(
        self, path: str, subject: str, value: object, *, ok: bool, seen: object, stored: int | None = None
    ) -> None:
        """Count a check, and record a failure unless it is ok. A path that `only` excludes is ignored."""
        if self.wants(path):
            self.checks[path] += 1
            if not ok:
                shown = f"{seen.isoformat()} in {seen.tzinfo}" if isinstance(seen, datetime) else str(seen)
                number = "" if stored is None else show(stored)
                self.fail(Failure(path, subject, str(value), shown, number))

    def fail(self, failure: Failure) -> None:
        """Record a failure, whatever `only` says."""
        self.failed[failure.path] += 1
        if self.failed[failure.path] <= EXAMPLES:
            self.failures.append(failure)

    @contextmanager
    def continued(self, path: str, subject: str = "the proof") -> Iterator[None]:
        """Record an error as a failure of this path, and continue with the next checks."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - code with a broken defence may raise anything
            self.fail(Failure(path, subject, "it stopped here", describe_error(error)))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dict that can be written as JSON."""
        summary = {"proved": self.is_proved, "total": self.checks.total()}
        return summary | vars(self) | {"failures": [vars(each) for each in self.failures]}


def describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def print_report(console: Console, report: Report, database: str) -> None:
    """Print the results, the failures with the commands that repeat them, and the verdict."""
    only = f", only {', '.join(report.only)}" if report.only else ""
    console.print(f"\nNo layer stores or shows a wrong time: tried on {database}", style="bold", markup=False)
    console.print(
        f"{report.server}\nsessions moved to {', '.join(report.zones)}\nseed {report.seed}{only}",
        style="dim",
        markup=False,
    )
    _print_matrix(console, report)
    for group, promise in _PROMISES.items():
        checks, failed = (
            sum(number for path, number in counted.items() if path.partition("/")[0] == group)
            for counted in (report.checks, report.failed)
        )
        if checks or failed:
            mark = f"[bold red]{failed} failed of[/]" if failed else "[green]✓[/]"
            console.print(f"{mark} {checks:5,}  {promise}")
    console.print()
    for path in report.failed:
        _print_failures(console, report, path)
    console.print(_verdict(report))


def _print_matrix(console: Console, report: Report) -> None:
    """Print a table with a column for each way to write and a row for each way to read."""
    crossed = [path.split("/") for path in report.checks if path.split("/")[0] not in _PROMISES]
    writes = dict.fromkeys(write for write, _ in crossed)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("    written →\nread ↓", vertical="bottom", no_wrap=True)
    for name in writes:
        table.add_column(_SHORT.get(name, name), justify="center", vertical="bottom", min_width=4)
    for read in dict.fromkeys(read for _, read in crossed):
        table.add_row(read, *(_cell(report, f"{write}/{read}") for write in writes))
    if writes:
        console.print(table)
        console.print(_LEGEND, style="dim")


def _cell(report: Report, path: str) -> Text:
    if failed := report.failed[path]:
        return Text(f"{min(failed, 9999)}", "bold red")
    return Text("✓", "green") if report.checks[path] else Text("·", "dim")


def _print_failures(console: Console, report: Report, path: str) -> None:
    console.print(f"[bold red]✗ {path}: {report.failed[path]:,} of {report.checks[path]:,}[/]")
    for failure in report.failures:
        if failure.path == path:
            lines = [f"  {failure.subject}  {failure.value}", f"    seen    {failure.seen}"]
            if failure.stored:
                lines.insert(1, f"    stored  {failure.stored}")
            console.print("\n".join(lines), markup=False, soft_wrap=True)
    console.print(
        f"  again: [cyan]nox -s utc_check -- --seed {report.seed} --only {path}[/]\n", soft_wrap=True
    )


def _verdict(report: Report) -> str:
    summary = f"{report.checks.total():,} checks on {len(report.checks)} paths in {report.seconds:.1f} s"
    if report.is_proved:
        return f"[bold green]PROVED[/]: {summary}, and no wrong time."
    if report.failed:
        wrong = f"{report.failed.total():,} wrong on {len(report.failed)} paths"
        return f"[bold red]NOT PROVED[/]: {summary}, {wrong}."
    return f"[bold red]NOTHING CHECKED[/]: no path matches {escape(' or '.join(report.only))}."
