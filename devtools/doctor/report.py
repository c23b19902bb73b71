"""The page: what was found, by groups, as wide as the terminal; or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, TextIO

from devtools.doctor.finding import Finding, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TITLES = {
    "docker": "Docker",
    "compose": "Compose",
    "ports": "Ports",
    "settings": "Settings",
    "files": "Files",
    "disk": "Room",
    "python": "Python",
    "database": "Database",
    "tests": "Tests in containers",
}
_SIGNS = {State.OK: "✓", State.WARNING: "!", State.WRONG: "✗", State.UNKNOWN: "?"}
_PLAIN_SIGNS = {State.OK: "+", State.WARNING: "!", State.WRONG: "x", State.UNKNOWN: "?"}
_COLOURS = {State.OK: "32", State.WARNING: "33", State.WRONG: "31", State.UNKNOWN: "36"}
_BOLD = "1"
NARROWEST, WIDEST = 40, 110


def as_json(found: Sequence[Finding]) -> str:
    return json.dumps([each.as_data() for each in found], indent=2)


class Page:
    """How a page is drawn on this output: its width, its colours, its signs."""

    def __init__(self, output: TextIO, environment: Mapping[str, str]) -> None:
        is_terminal = output.isatty()
        self.has_colours = (
            is_terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        )
        columns = shutil.get_terminal_size((WIDEST, 24)).columns if is_terminal else WIDEST
        self.width = max(NARROWEST, min(columns, WIDEST))
        self.signs, self.arrow = (_SIGNS, "→") if _can_write(output) else (_PLAIN_SIGNS, ">")

    def lines(self, found: Sequence[Finding]) -> Iterator[str]:
        wide = max((len(label(each)) for each in found), default=0)
        told: set[str] = set()
        for group, members in groupby(found, key=group_of):
            yield self._painted(TITLES.get(group, group), _BOLD)
            for each in merged(list(members)):
                # What would let more be known is said once.
                is_told = each.state is State.UNKNOWN and each.cure in told
                yield from self._entry(replace(each, cure="") if is_told else each, wide)
                told.add(each.cure)
            yield ""
        yield self._closing(found)

    def _entry(self, found: Finding, wide: int) -> Iterator[str]:
        sign = self._painted(self.signs[found.state], _COLOURS[found.state])
        name = label(found)
        room = 4 + wide + 2
        # A name as long as several have together gets a line of its own.
        beside = len(name) <= wide
        if not beside:
            yield f"  {sign} {name}"
        lines = self._wrapped(found.finding, room)
        yield f"  {sign} {name:{wide}}  {lines[0]}" if beside else f"{'':{room}}{lines[0]}"
        yield from (f"{'':{room}}{line}" for line in lines[1:])
        if found.cure:
            first, *rest = self._wrapped(found.cure, room + 2)
            yield f"{'':{room}}{self._painted(self.arrow, _COLOURS[found.state])} {first}"
            yield from (f"{'':{room + 2}}{line}" for line in rest)

    def _wrapped(self, sentence: str, indent: int) -> list[str]:
        width = max(self.width - indent, 20)
        return textwrap.wrap(sentence, width, break_on_hyphens=False) or [""]

    def _closing(self, found: Sequence[Finding]) -> str:
        counts = {state: sum(each.state is state for each in found) for state in State}
        words = {State.OK: "well", State.WARNING: "warning" if counts[State.WARNING] == 1 else "warnings"}
        told = [
            self._painted(f"{count} {words.get(state, state)}", _COLOURS[state])
            for state, count in counts.items()
            if count
        ]
        if not counts[State.WRONG]:
            verdict = "All is well" if counts[State.OK] == len(found) else "Nothing is wrong"
        else:
            verdict = "Something is wrong"
        return f"{self._painted(verdict, _BOLD)}: {', '.join(told)}."

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.has_colours else text


def label(found: Finding) -> str:
    return found.name.partition("/")[2].replace("-", " ")


def group_of(found: Finding) -> str:
    return found.name.partition("/")[0]


def merged(found: Sequence[Finding]) -> Iterator[Finding]:
    """Say once what could not be told of several, for one reason."""
    for (state, finding, cure), same in groupby(
        found, key=lambda each: (each.state, each.finding, each.cure)
    ):
        members = list(same)
        if state is State.UNKNOWN and len(members) > 1:
            names = ", ".join(label(each) for each in members)
            yield Finding(f"{group_of(members[0])}/{names}", state, finding, cure)
        else:
            yield from members


def _can_write(output: TextIO) -> bool:
    try:
        "✓✗→".encode(output.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return os.name != "nt"
