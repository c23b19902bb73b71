"""What a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, and something is worth to be known."""
    WRONG = "wrong"
    """Something does not work, or not as it should."""
    UNKNOWN = "unknown"
    """It could not be told."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; several may bear one name."""

    name: str
    """Its group and its own name, as `docker/engine`."""
    state: State
    finding: str
    """What is so, as a sentence."""
    cure: str = ""
    """What to do about it, as a sentence; empty where there is nothing to do."""

    def as_data(self) -> dict[str, str]:
        return asdict(self)


def ok(name: str, finding: str) -> Finding:
    return Finding(name, State.OK, finding)


def warning(name: str, finding: str, cure: str) -> Finding:
    return Finding(name, State.WARNING, finding, cure)


def wrong(name: str, finding: str, cure: str) -> Finding:
    return Finding(name, State.WRONG, finding, cure)


def unknown(name: str, finding: str, cure: str = "") -> Finding:
    return Finding(name, State.UNKNOWN, finding, cure)
