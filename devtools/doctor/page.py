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


def print_page(findings: Sequence[Finding], console: Console | None = None) -> None:
    console = console or Console()
    labels = max((len(_label(each)) for each in findings if each.state is not State.UNKNOWN), default=8)
    for group, members in groupby(findings, key=lambda each: each.name.partition("/")[0]):
        console.print(Text(TITLES.get(group, group.capitalize()), style="bold"))
        for label, finding in _merged(members):
            for line in _entry(console, label, finding, labels):
                console.print(line, soft_wrap=True)
        console.print()
    console.print(_verdict(findings))


def _label(finding: Finding) -> str:
    return finding.name.partition("/")[2]


def _merged(findings: Iterator[Finding]) -> Iterator[tuple[str, Finding]]:
    """Yield each finding with its label; findings that are unknown for the same reason become one, with all labels."""
    for (state, *_), same in groupby(findings, key=lambda each: (each.state, each.finding, each.cure)):
        members = list(same)
        if state is State.UNKNOWN:
            yield ", ".join(map(_label, members)), members[0]
        else:
            yield from ((_label(each), each) for each in members)


def _entry(console: Console, label: str, finding: Finding, labels: int) -> Iterator[Text]:
    style, room = _STYLES[finding.state], " " * (labels + 6)
    start = Text.assemble("  ", (_SIGNS[finding.state], style), f" {label:{labels}}  ")
    if len(label) > labels:
        start.rstrip()
        yield start
        start = Text(room)
    yield from _wrapped(console, start, finding.finding)
    if finding.cure:
        yield from _wrapped(console, Text.assemble(room, ("→ ", style)), finding.cure)


def _wrapped(console: Console, start: Text, sentence: str) -> Iterator[Text]:
    width = max(min(console.width, WIDEST) - start.cell_len, 20)
    for line in Text(sentence).wrap(console, width, overflow="fold"):
        line.rstrip()
        yield start + line
        start = Text(" " * start.cell_len)


def _verdict(findings: Sequence[Finding]) -> Text:
    counts = {state: sum(each.state is state for each in findings) for state in State}
    names = {State.OK: "well", State.WARNING: "warning" if counts[State.WARNING] == 1 else "warnings"}
    parts = [
        Text(f"{counts[state]} {names.get(state, state)}", _STYLES[state]) for state in State if counts[state]
    ]
    verdict = "Something is wrong" if counts[State.WRONG] else "Nothing is wrong"
    if counts[State.OK] == len(findings):
        verdict = "All is well"
    return Text.assemble((verdict, "bold"), ": ", Text(", ").join(parts), ".")
