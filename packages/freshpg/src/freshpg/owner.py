"""Who made what outlives a killed process: enough to tell later, on the same machine, that nobody wants it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Owner:
    """A process, by what no other has at any time: the machine's boot, the space of its number, number and birth."""

    machine: str
    pid: int
    born: str

    def __str__(self) -> str:
        return f"{self.machine} {self.pid} {self.born}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read what `str` wrote; None where it is anything else."""
        words = text.split(" ")
        if len(words) != 3 or not words[1].isdecimal() or not words[1].isascii():  # noqa: PLR2004 (as __str__ has it)
            return None
        return cls(words[0], int(words[1]), words[2])

    def is_gone(self) -> bool:
        """Tell whether the process has ended for certain; of another machine, boot or container nothing is known."""
        return self.machine == this_process().machine and _born(self.pid) != self.born


@functools.cache
def _of(pid: int) -> Owner:
    return Owner(_machine(), pid, _born(pid) or "unknown")


def this_process() -> Owner:
    """Return this process as an owner."""
    return _of(os.getpid())


_acting_for: Owner | None = None


def act_for(owner: Owner) -> None:
    """Have what this process makes belong to another, which outlives it: a worker to its controller."""
    global _acting_for  # noqa: PLW0603 (it is the process's own state, as its number is)
    _acting_for = owner


def acting_owner() -> Owner:
    """Return the owner of what this process makes for whom it acts for: itself, unless told otherwise."""
    return _acting_for or this_process()


def _machine() -> str:
    """Name this boot of this machine, and within it the space of process numbers, which a container has of its own."""
    if sys.platform == "linux":
        with suppress(OSError):
            space = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
            return f"{_BOOT_ID.read_text(encoding='ascii').strip()}/{space}"
        # Without /proc nothing can be told from anything: a name that no other process ever has.
        return f"unknown/{os.urandom(8).hex()}"
    answer = subprocess.run(
        ["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or f"unknown/{os.urandom(8).hex()}"


def _born(pid: int) -> str | None:
    """Return when a process began, in the system's own words; None where there is none."""
    if sys.platform == "linux":
        try:
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        words = status.rpartition(") ")[2].split(" ")
        # One that only waits to be reaped does nothing more. The 22nd word of all is the time of its start.
        return None if words[0] in "ZX" else words[19]
    answer = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return "-".join(answer.stdout.split()) or None
