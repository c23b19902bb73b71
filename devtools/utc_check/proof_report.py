"""The outcome of a proof."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

EXAMPLES = 3
"""Failures kept for each path. The others are only counted, since a broken defence fails thousands of values."""


@dataclass(frozen=True)
class Failure:
    """A wrong time."""

    path: str
    """What `--only` takes to repeat it: `copy/orm` for rows written by COPY and read by the ORM."""
    subject: str
    value: str
    seen: str
    stored: str
    """What PostgreSQL has, in microseconds from 1970, if there is a row."""


@dataclass
class Report:
    """How many values or attempts were checked and how many failed, by path."""

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
        self, path: str, subject: object, value: object, *, ok: bool, seen: object, stored: str = ""
    ) -> None:
        """Count a check, and record a failure unless it is ok. A path that `only` excludes is ignored."""
        if self.wants(path):
            self.checks[path] += 1
            if not ok:
                self.fail(path, subject, value, seen=seen, stored=stored)

    def fail(self, path: str, subject: object, value: object, *, seen: object, stored: str = "") -> None:
        """Record a failure, whatever `only` says."""
        self.failed[path] += 1
        if self.failed[path] <= EXAMPLES:
            shown = f"{seen.isoformat()} in {seen.tzinfo}" if isinstance(seen, datetime) else str(seen)
            self.failures.append(Failure(path, str(subject), str(value), shown, stored))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can represent it."""
        paths = sorted(self.checks | self.failed)
        return {
            "proved": self.is_proved,
            "seed": self.seed,
            "zones": list(self.zones),
            "only": list(self.only),
            "server": self.server,
            "seconds": round(self.seconds, 3),
            "checks": self.checks.total(),
            "failed": self.failed.total(),
            "paths": {path: {"checks": self.checks[path], "failed": self.failed[path]} for path in paths},
            "failures": [asdict(failure) for failure in self.failures],
        }
