"""What one process's tests did on their databases, and what keeping them apart cost.

The fixtures write it, and the reports read it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

Tier = Literal["session", "committing", "clone", "empty"]

STATEMENTS_KEPT = 200
"""So many of a test's last statements are kept, for the report of its failure."""


@dataclass
class Use:
    """One test's use of one database."""

    test: str
    """The test's node id."""
    tier: Tier
    database: str
    url: str = field(repr=False)
    """A `postgresql://` URL of that database."""
    statements: deque[str] = field(default_factory=lambda: deque(maxlen=STATEMENTS_KEPT), repr=False)
    """The last statements that were sent through the test's engine, oldest first."""
    commits: int = 0
    seconds: float = 0.0
    """Spent on isolation before and after the test, as its wall clock has it."""
    faults: list[str] = field(default_factory=list)
    """What was found after the test that fails it: sentences, each with what to do."""
    notes: list[str] = field(default_factory=list)
    """What the guard of the tier `session` saw, also where the test went on: sentences for the report of a failure."""
    server_changed: bool | None = None
    """Whether things came to the server since the last reset, or went; None where nobody looked after the test."""
    keep: Callable[[], str] | None = field(default=None, repr=False)
    """Called when the test has failed and its database is to be kept, before anything is torn down.

    It makes the database hold what the test saw, as far as that can be done, and returns a sentence about what it
    could not; nothing where the database holds that anyway.
    """
    kept_as: str | None = None
    """The name that the database will have once the test is over, where it is kept and others need its own."""


@dataclass
class Ledger:
    """The uses of this process, oldest first; the last is the current test's."""

    uses: list[Use] = field(default_factory=list)

    def of(self, test: str) -> list[Use]:
        """Return the uses of the test that is the current one, oldest first; none, if it has no database."""
        found: list[Use] = []
        # From the end: there may be thousands before them.
        for use in reversed(self.uses):
            if use.test != test:
                break
            found.append(use)
        return found[::-1]


LEDGER = pytest.StashKey[Ledger]()


def ledger_of(config: pytest.Config) -> Ledger:
    """Return this process's ledger, made at the first look."""
    found = config.stash.get(LEDGER, None)
    return found if found is not None else config.stash.setdefault(LEDGER, Ledger())
