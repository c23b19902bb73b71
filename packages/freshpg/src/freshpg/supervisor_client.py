"""The supervisor of an embedded server (`supervisor.py`), as the process that starts it sees it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import supervisor
from .run_as import server_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .run_as import RunAs

_STOP_SECONDS = 40.0
"""More than the supervisor takes if each of its own deadlines passes."""


class SupervisorClient:
    """A supervisor process; its server is stopped and `remove` is removed when it or this process ends."""

    def __init__(self, remove: Sequence[Path] = (), lock: int | None = None) -> None:
        self._remove = remove
        self._lock = lock
        self._owner = os.getpid()
        self._status: int | None = None
        # Unbuffered: a buffer's lock could be held by another thread when the process forks.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            pass_fds=[] if lock is None else [lock],
        )
        if self._process.stdin is None or self._process.stdout is None:  # pragma: no cover
            raise AssertionError
        self._input, self._output = self._process.stdin, self._process.stdout
        # A forked child must neither keep the server alive nor stop it.
        os.register_at_fork(after_in_child=self._close)
        self._send({"remove": [str(path) for path in remove]})

    def start(self, command: Sequence[str], data: Path, log: Path, run_as: RunAs) -> None:
        """Start a server. It may end at once, as `ended` tells."""
        self._status = None
        order = {
            "command": [*run_as.prefix, *command, "-D", str(data)],
            "log": str(log),
            "environment": server_environment(),
            "user": run_as.uid,
            "group": run_as.gid,
            "lock": self._lock,
        }
        self._send({"start": order})

    def ended(self, seconds: float = 0.0) -> str | None:
        """Return how the server ended, as `exit status 1` or `SIGKILL`; None if it still runs after these seconds."""
        if self._status is None and select.select([self._output], [], [], seconds)[0]:
            line = os.read(self._output.fileno(), 4096)
            # Nothing comes from a supervisor that was killed.
            self._status = int(line) if line else None
        if self._status is None:
            return None
        if self._status < 0:
            return signal.Signals(-self._status).name
        return f"exit status {self._status}"

    def stop(self) -> None:
        """Have the supervisor stop the server and clean up, and wait; if it was killed, do its work."""
        if os.getpid() != self._owner:
            return
        self._close()
        # A process that another thread forked at the wrong moment may hold the input open.
        self._process.terminate()
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code != 0:
            # PostgreSQL ends by itself, within a minute, when its data directory is gone.
            for directory in self._remove:
                supervisor.remove(str(directory))

    def leave(self) -> str:
        """Have the server outlive this process; return the command that ends it."""
        self._send({"leave": True})
        self._close()
        # Popen would warn that the process still runs.
        self._process.returncode = 0
        return f"kill {self._process.pid}"

    def _close(self) -> None:
        self._input.close()
        self._output.close()

    def _send(self, order: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            self._input.write(json.dumps(order).encode() + b"\n")
