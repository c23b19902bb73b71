"""What became of each test in one combination, and what differs between several."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .combinations import Combination

ABSENT = "absent"
"""The outcome of a test that a combination does not have."""
BAD = ("failed", "error")


@dataclass
class Row:
    """One combination, and what became of it."""

    combination: Combination
    absence: str | None = None
    """Why it was not run."""
    exit_code: int | None = None
    seconds: float = 0.0
    outcomes: dict[str, str] = field(default_factory=dict)
    """Each test's node id, and one of passed, failed, error, skipped, xfailed."""

    @property
    def ran(self) -> bool:
        return self.exit_code is not None

    def count(self, *outcomes: str) -> int:
        counts = Counter(self.outcomes.values())
        return sum(counts[outcome] for outcome in outcomes)


@dataclass(frozen=True)
class Difference:
    """A test whose outcome is not the same everywhere."""

    test: str
    outcomes: tuple[str, ...]
    """One for each row that was compared, in their order."""


def differences(rows: Sequence[Row]) -> list[Difference]:
    """Return the tests whose outcome differs between these rows, by name."""
    names = sorted({name for row in rows for name in row.outcomes})
    compared = (Difference(name, tuple(row.outcomes.get(name, ABSENT) for row in rows)) for name in names)
    return [difference for difference in compared if len(set(difference.outcomes)) > 1]


def read_junit(path: Path) -> dict[str, str]:
    """Read what pytest wrote with `junit_family=xunit1`: an outcome for each node id, nothing if there is no file."""
    if not path.exists():
        return {}
    outcomes: dict[str, str] = {}
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 (our own pytest wrote it)
        name = _node_id(case)
        outcome = _outcome(case)
        # A test that fails and then fails to clean up as well is written twice.
        if outcomes.get(name) not in BAD:
            outcomes[name] = outcome
    return outcomes


def _node_id(case: ET.Element) -> str:
    file, where, name = (case.get(key, "") for key in ("file", "classname", "name"))
    if not file:
        # A module that cannot be collected.
        return name or where
    module = file.removesuffix(".py").replace("/", ".")
    classes = where.removeprefix(module).strip(".").replace(".", "::")
    return "::".join(filter(None, (file, classes, name)))


def _outcome(case: ET.Element) -> str:
    for tag, outcome in (("error", "error"), ("failure", "failed")):
        if case.find(tag) is not None:
            return outcome
    skipped = case.find("skipped")
    if skipped is None:
        return "passed"
    return "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"
