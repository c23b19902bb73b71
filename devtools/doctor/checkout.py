"""The checkout that is looked at, with the environment variables that everything in it is given."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from devtools.doctor.command import Said, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_T = TypeVar("_T")
_DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")


class Once(Generic[_T]):
    """A question that several ask, at the same time, and that is asked once."""

    def __init__(self, ask: Callable[[], _T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: list[_T] = []

    def __call__(self) -> _T:
        with self._lock:
            if not self._answer:
                self._answer.append(self._ask())
            return self._answer[0]


@dataclass(frozen=True)
class Checkout:
    root: Path
    environment: Mapping[str, str] = field(repr=False)

    def run(self, *command: str, seconds: float = 5.0, **variables: str) -> Said:
        """Run a program in the checkout, with these variables beside those that are there. Raises NotThereError."""
        return run(
            *command, seconds=seconds, environment={**self.environment, **variables}, directory=self.root
        )

    @property
    def compose_text(self) -> str:
        return self.text("compose.yaml")

    @property
    def defaults(self) -> dict[str, str]:
        """What `compose.yaml` takes where a setting is absent."""
        return dict(_DEFAULT.findall(self.compose_text))

    @property
    def is_workspace(self) -> bool:
        """Whether this is the dev container, which has nox work in the one environment that is there."""
        return self.environment.get("NOX_DEFAULT_VENV_BACKEND") == "none"

    def text(self, name: str) -> str:
        """Return the text of one of the project's own files; nothing where it cannot be read."""
        try:
            return (self.root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def is_at(self, place: str) -> bool:
        """Whether this is the checkout that Compose has as that place of the engine's machine."""
        if os.path.exists("/.dockerenv") and not os.path.exists(place):  # noqa: PTH110  words of Compose's
            # In a container it goes by another name, and which it is cannot be told.
            return True
        return os.path.realpath(place) == os.path.realpath(self.root)

    def shown(self, path: Path) -> str:
        """Name a file for people: from the root, where it lies below it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
