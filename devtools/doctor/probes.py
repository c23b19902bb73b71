"""All questions at once, each within its time; what is slow is shown meanwhile, on a terminal."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from devtools.doctor.finding import Finding, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUIET_SECONDS = 1.0
_LOOK_SECONDS = 0.1


@dataclass
class Probe:
    """A question: what it is about, the names of what it finds, and how it is asked."""

    what: str
    names: tuple[str, ...]
    ask: Callable[[], Sequence[Finding]]
    seconds: float = 20.0
    found: Sequence[Finding] | None = field(default=None, init=False)

    def run(self) -> None:
        try:
            self.found = tuple(self.ask())
        except Exception as error:  # noqa: BLE001  the thread's outermost edge; its text could hold anything
            self.found = [
                unknown(name, f"Could not be told: {type(error).__name__} on the way.") for name in self.names
            ]


def gather(probes: Sequence[Probe], terminal: TextIO | None = None) -> list[Finding]:
    """Ask them all at once and return what was found, in the order of the probes.

    One that takes longer than its time is unknown; its thread, a daemon, holds nobody up. With a terminal, whatever is
    still asked after a second is shown there.
    """
    started = time.monotonic()
    threads = [threading.Thread(target=probe.run, name=probe.what, daemon=True) for probe in probes]
    for thread in threads:
        thread.start()
    shown = ""
    while pending := [
        probe
        for probe, thread in zip(probes, threads, strict=True)
        if thread.is_alive() and time.monotonic() - started < probe.seconds
    ]:
        waited = time.monotonic() - started
        if terminal is not None and waited >= QUIET_SECONDS:
            names = ", ".join(probe.what for probe in pending)
            # A line that wrapped could not be wiped away.
            width = shutil.get_terminal_size().columns - 1
            shown = _show(terminal, f"{waited:.0f} s: {names} ..."[:width], shown)
        for thread in threads:
            if thread.is_alive():
                thread.join(_LOOK_SECONDS)
                break
    if terminal is not None:
        _show(terminal, "", shown)
    return [finding for probe in probes for finding in _result(probe)]


def _show(terminal: TextIO, line: str, before: str) -> str:
    """Put a line in the place of the one before; return it."""
    if line != before:
        terminal.write(f"\r\x1b[K{line}")
        terminal.flush()
    return line


def _result(probe: Probe) -> Sequence[Finding]:
    if probe.found is None:
        return [unknown(name, f"No answer within {probe.seconds:g} s.") for name in probe.names]
    return probe.found
