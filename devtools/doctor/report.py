"""Print the findings by subject, as wide as the terminal."""

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from devtools.doctor.finding import Finding, State

TITLES = {"disk": "Disk space"}
WIDEST = 110
_SIGNS = {State.OK: "✓", State.WARNING: "!", State.WRONG: "✗", State.UNKNOWN: "?"}
_STYLES = {State.OK: "green", State.WARNING: "yellow", State.WRONG: "red", State.UNKNOWN: "cyan"}


def print_report(findings: Sequence[Finding], console: Console | None = None) -> None:
    console = console or Console()
    width = max(len(_label(each)) for each in findings)
    for group, members in groupby(findings, key=lambda each: each.name.partition("/")[0]):
        console.print(Text(TITLES.get(group, group.capitalize()), style="bold"))
        table = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
        for finding in members:
            style = _STYLES[finding.state]
            start = Text.assemble("  ", (_SIGNS[finding.state], style), f" {_label(finding):{width}}")
            table.add_row(start, Text(finding.finding))
            if finding.cure:
                table.add_row("", Text.assemble(("→ ", style), finding.cure))
        console.print(table, width=min(console.width, WIDEST))
        console.print()
    console.print(_verdict(findings))


def _label(finding: Finding) -> str:
    return finding.name.partition("/")[2]


def _verdict(findings: Sequence[Finding]) -> Text:
    """Say whether everything is fine, what fails, and what only deserves a look."""
    titles = {State.WRONG: "To be fixed", State.WARNING: "Worth a look", State.UNKNOWN: "Not checked"}
    parts = [
        Text(f"{title}: {', '.join(names)}.", _STYLES[state])
        for state, title in titles.items()
        if (names := dict.fromkeys(each.name for each in findings if each.state is state))
    ]
    verdict = "Nothing fails." if parts else "Everything is fine."
    if any(each.state is State.WRONG for each in findings):
        verdict = "Some checks fail."
    return Text(" ").join([Text(verdict, "bold"), *parts])
