"""What was proved and what was not."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

# Of one path so many failures are kept; the others are counted. A defence that is gone fails thousands of values.
EXAMPLES = 3


@dataclass(frozen=True)
class Failure:
    """A wrong time: on which path, of which value, and what came of it."""

    path: str
    """What `only` takes to try it again: `copy/orm` for rows written by COPY and read by the ORM."""
    subject: str
    """The column, or the thing that was tried."""
    value: str
    stored: str
    """What PostgreSQL holds, in microseconds from the epoch, where a row came of it."""
    seen: str

    def __str__(self) -> str:
        return f"{self.path}: {self.subject} of {self.value}: stored {self.stored or 'nothing'}, seen {self.seen}"


@dataclass(frozen=True)
class Observation:
    """What is so on this server, without being a failure: the proof held all the same."""

    name: str
    text: str
    is_remarkable: bool = False
    """Whether somebody should look at it: other clients of this database may be wrong."""


@dataclass
class Report:
    """The outcome of a proof."""

    seed: int
    zones: tuple[str, ...]
    checks: Counter[str] = field(default_factory=Counter)
    """How many values or attempts were checked, by path."""
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    """Of each path the first few."""
    observations: list[Observation] = field(default_factory=list)
    seconds: float = 0.0
    only: str | None = None

    @property
    def is_proved(self) -> bool:
        return not self.failed and self.total > 0

    @property
    def total(self) -> int:
        return self.checks.total()

    def wants(self, path: str) -> bool:
        """Whether this path is to be tried: `only` is a path, the first part of some, or a pattern with `*`."""
        only = self.only
        return only is None or path == only or path.startswith(f"{only}/") or fnmatchcase(path, only)

    def count(self, path: str, checks: int = 1) -> None:
        if self.wants(path):
            self.checks[path] += checks

    def fail(self, path: str, subject: str, value: object, *, stored: object = "", seen: object) -> None:
        """Enter a failed check, which `count` has counted or will count; what `only` leaves out is not entered."""
        if not self.wants(path):
            return
        self.failed[path] += 1
        if self.failed[path] <= EXAMPLES:
            self.failures.append(Failure(path, subject, str(value), str(stored), str(seen)))

    def check(self, path: str, subject: str, value: object, *, holds: bool, seen: object) -> None:
        """Count a check, and enter it as failed where it does not hold."""
        self.count(path)
        if not holds:
            self.fail(path, subject, value, seen=seen)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, in what JSON can hold."""
        return {
            "proved": self.is_proved,
            "seed": self.seed,
            "zones": list(self.zones),
            "only": self.only,
            "seconds": round(self.seconds, 3),
            "checks": self.total,
            "failed": self.failed.total(),
            "paths": {
                path: {"checks": self.checks[path], "failed": self.failed[path]}
                for path in sorted(self.checks | self.failed)
            },
            "failures": [asdict(failure) for failure in self.failures],
            "observations": [asdict(observation) for observation in self.observations],
        }
