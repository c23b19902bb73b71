"""The process that owns an embedded server and outlives its own parent just long enough to stop the server.

It runs this file by path, in isolated mode, and every start waits for it: so only the standard library is imported
here. Its arguments are directories to remove at the end. It reads one JSON object per line from its standard input,
`{"start": {"command", "log", "environment", "account"}}` or `{"leave": true}`, and when the server ends, it writes how
on a line. At the end of the input the parent has stopped, crashed or was killed: the server is stopped, and the
directories are removed. After `leave`, SIGTERM does that.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_STOP_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 3.0))
"""PostgreSQL's fast shutdown, its immediate shutdown, and the end; each with the seconds that it is given."""
_REMOVE_SECONDS = 5.0
_STOP_SECONDS = 40.0
"""More than the supervisor takes if each of its own deadlines passes."""


class Supervisor:
    """A supervisor as the process that starts it sees it; `remove` is removed when it or this process ends.

    The server inherits `lock`, a file descriptor, and so does the supervisor.
    """

    def __init__(self, remove: Sequence[Path] = (), lock: int | None = None) -> None:
        self._owner = os.getpid()
        self._remove = [str(directory) for directory in remove]
        self._end: str | None = None
        # Unbuffered: a buffer's lock could be held by another thread when the process forks.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *self._remove],
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

    def start(
        self, command: Sequence[str], log: Path, environment: dict[str, str], account: dict[str, Any]
    ) -> None:
        """Start a server, with Popen's arguments for another account. It may end at once, as `ended` tells."""
        self._end = None
        order = {"command": command, "log": str(log), "environment": environment, "account": account}
        self._send({"start": order})

    def ended(self, seconds: float = 0.0) -> str | None:
        """Return how the server ended, as `exit status 1` or `SIGKILL`; None if it still runs after these seconds."""
        if self._end is not None or self._output.closed:
            return self._end
        if select.select([self._output], [], [], seconds)[0]:
            line = os.read(self._output.fileno(), 4096)
            self._end = line.decode().strip() or "its supervisor"
        return self._end

    def stop(self) -> None:
        """Have the supervisor stop the server and clean up, and wait."""
        if os.getpid() != self._owner:
            return
        self._close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # A process that another thread forked at the wrong moment may hold the input open.
            self._process.terminate()
        if self._process.wait() != 0:
            # It was killed. PostgreSQL ends by itself, within a minute, when its data directory is gone.
            for directory in self._remove:
                remove(directory)

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
        with contextlib.suppress(BrokenPipeError):
            self._input.write(json.dumps(order).encode() + b"\n")


class Child:
    """The server as its supervisor sees it."""

    def __init__(
        self, command: list[str], log: str, environment: dict[str, str], account: dict[str, Any]
    ) -> None:
        with open(log, "ab") as output:  # noqa: PTH123 (importing pathlib would double the time of a start)
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment,
                close_fds=False,  # it inherits the lock
                **account,
            )
        self.watch = threading.Thread(target=self.report, daemon=True)
        self.watch.start()

    def report(self) -> None:
        """Wait for the server's end and say how it ended."""
        status = self.process.wait()
        end = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        with contextlib.suppress(BrokenPipeError):
            os.write(1, f"{end}\n".encode())

    def stop(self) -> None:
        for number, seconds in _STOP_SIGNALS:
            if self.watch.is_alive():
                self.process.send_signal(number)
                self.watch.join(seconds)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    # Handlers and not SIG_IGN, which the server would inherit.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, lambda *_: None)
    server: Child | None = None
    try:
        for line in sys.stdin:
            order = json.loads(line)
            if "start" in order:
                try:
                    server = Child(**order["start"])
                except OSError as error:
                    os.write(1, f"{error}\n".encode())
            elif server is not None:
                # A process that waits for the end of the parent's output must not wait for this one.
                with open(os.devnull, "wb") as nothing:  # noqa: PTH123 (importing pathlib would double the time of a start)
                    os.dup2(nothing.fileno(), 1)
                    os.dup2(nothing.fileno(), 2)
                server.watch.join()
                break
    finally:
        signal.signal(signal.SIGTERM, lambda *_: None)
        if server is not None:
            server.stop()
        for directory in sys.argv[1:]:
            remove(directory)


def remove(directory: str) -> None:
    """Remove a directory, again and again while the last processes of a server still write into it."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while os.path.lexists(directory) and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        if os.path.lexists(directory):
            time.sleep(0.02)


if __name__ == "__main__":
    main()
