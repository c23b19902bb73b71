"""Print the findings by subject, as wide as the terminal."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
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
        for finding in members:
            for line in _entry(console, finding, width):
                console.print(line, soft_wrap=True)
        console.print()
    console.print(_verdict(findings))


def _label(finding: Finding) -> str:
    return finding.name.partition("/")[2]


def _entry(console: Console, finding: Finding, width: int) -> Iterator[Text]:
    style = _STYLES[finding.state]
    start = Text.assemble("  ", (_SIGNS[finding.state], style), f" {_label(finding):{width}}  ")
    yield from _wrapped(console, start, finding.finding)
    if finding.cure:
        yield from _wrapped(console, Text.assemble(" " * (width + 6), ("→ ", style)), finding.cure)


def _wrapped(console: Console, start: Text, sentence: str) -> Iterator[Text]:
    width = max(min(console.width, WIDEST) - start.cell_len, 20)
    for line in Text(sentence).wrap(console, width, overflow="fold"):
        line.rstrip()
        yield start + line
        start = Text(" " * start.cell_len)


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
