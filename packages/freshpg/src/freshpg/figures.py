"""What the database cost a run of tests, on one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .probe import NoAnswer, ask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .ledger import Tier
    from .server import Server

_TIERS: tuple[Tier, ...] = ("session", "committing", "clone", "empty")
_HELD = """
    select (select sum(pg_database_size(oid)) from pg_database) + (select coalesce(sum(size), 0) from pg_ls_waldir()),
           current_setting('data_directory') ~ '^/(dev/shm|pgtmp)/'
"""
_MEGABYTE = 1024 * 1024
_HELD_SECONDS = 5.0
_NAMED = 3


@dataclass
class Figures:
    """The figures of a run, gathered from the reports of its tests, whichever process ran them."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    """What isolation took, each time, by tier."""
    workers: set[str] = field(default_factory=set)
    """The processes whose tests used the server."""
    leaks: list[str] = field(default_factory=list)
    faulty: list[str] = field(default_factory=list)
    """The tests that changed what they should not have."""

    def line(self, server: Server, *, boot_seconds: float, run_seconds: float) -> str | None:
        """Return the line; nothing where no test used the server, or there is nothing to say."""
        if not self.workers:
            return None
        parts = [f"ready in {boot_seconds:.2f} s"] if server.kind != "given" else []
        if self.seconds:
            parts.append(self._isolation(run_seconds))
        if server.kind != "given" and (held := _held(server)) is not None:
            parts.append(held)
        parts += self._left(looked_for=server.kind != "given")
        return f"PostgreSQL {server.version} {server.kind}: {'; '.join(parts)}" if parts else None

    def _isolation(self, run_seconds: float) -> str:
        tiers = [
            f"{tier} {percentile(spent, 50) * 1000:.1f} ms p50, {percentile(spent, 95) * 1000:.1f} ms p95 "
            f"({len(spent)} {'test' if len(spent) == 1 else 'tests'})"
            for tier in _TIERS
            if (spent := self.seconds.get(tier))
        ]
        whole = run_seconds * max(1, len(self.workers))
        share = sum(map(sum, self.seconds.values())) / whole if whole else 0.0
        return f"isolation {', '.join(tiers)}, {share:.1%} of the run"

    def _left(self, *, looked_for: bool) -> list[str]:
        left = [f"leaked: {_some(self.leaks)}"] if self.leaks else []
        if self.faulty:
            left.append(f"not as it was after {_some(self.faulty)}")
        return left or (["nothing leaked"] if looked_for else [])


def percentile(values: Iterable[float], percent: int) -> float:
    """Return the smallest of the values that so many per cent of them do not exceed (the nearest rank)."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _held(server: Server) -> str | None:
    try:
        size, in_memory = ask(server.url, _HELD, _HELD_SECONDS)[0]
    except NoAnswer:
        return None
    return (
        f"{int(float(size)) / _MEGABYTE:.0f} MB {'in memory' if in_memory == 't' else 'on disk'} at the end"
    )


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
