"""The findings of the checks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    """It could not be checked."""


@dataclass(frozen=True)
class Finding:
    name: str
    """The name, such as `engine` from the check of Docker; the report and the JSON add the subject: `docker/engine`."""
    state: State
    finding: str
    cure: str = ""


def ok(name: str, finding: str) -> Finding:
    return Finding(name, State.OK, finding)


def warning(name: str, finding: str, cure: str) -> Finding:
    return Finding(name, State.WARNING, finding, cure)


def wrong(name: str, finding: str, cure: str) -> Finding:
    return Finding(name, State.WRONG, finding, cure)


def unknown(name: str, finding: str, cure: str = "") -> Finding:
    return Finding(name, State.UNKNOWN, finding, cure)


def where(variable: str) -> str:
    """Return the place in which to set a variable: one that is in the environment wins over `.env`."""
    return "the environment" if variable in os.environ else ".env"


def few(names: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
