"""Other programs, asked within a time limit, and none of them left running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()
_ended = threading.Event()


class NotThereError(Exception):
    """The program is not on PATH, or may not be run."""


@dataclass(frozen=True)
class Said:
    """What a program said before it ended, or before its time was up."""

    code: int | None
    """Its exit code; None where it was ended, for its time was up."""
    out: str
    error: str

    @property
    def is_late(self) -> bool:
        return self.code is None


def run(*command: str, seconds: float, environment: Mapping[str, str], directory: Path | None = None) -> Said:
    """Run a program to its end, or end it and its children when the time is up. Raises NotThereError."""
    program = shutil.which(command[0], path=environment.get("PATH", ""))
    if program is None:
        raise NotThereError(command[0])
    process = _start([program, *command[1:]], environment, directory)
    try:
        out, error = process.communicate(timeout=seconds)
        return Said(process.returncode, _text(out), _text(error))
    except subprocess.TimeoutExpired as late:
        end(process)
        return Said(None, _text(late.stdout), _text(late.stderr))
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        with _lock:
            _running.discard(process)


def _start(
    command: Sequence[str], environment: Mapping[str, str], directory: Path | None
) -> subprocess.Popen[bytes]:
    # Under the lock, so that none is started that `end_all` does not know of.
    with _lock:
        if _ended.is_set():
            raise NotThereError(command[0])
        try:
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that its children can be ended with it
            )
        except OSError:
            raise NotThereError(command[0]) from None
        _running.add(process)
        return process


def end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # A grandchild that left the session may hold the pipes: they are not waited for.
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)


def end_all() -> None:
    """End whatever still runs, as when the doctor itself is interrupted, and let nothing be started any more."""
    with _lock:
        _ended.set()
        left = list(_running)
    for process in left:
        end(process)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
