"""The process that owns an embedded server (`keeper/`), as its owner sees it."""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

# Imported, and not run by path, so that its compiled form is kept.
_KEEPER = (
    f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import keeper.keeper; keeper.keeper.main()"
)
_STOP_SECONDS = 45.0
"""More than the keeper takes when every one of its own deadlines passes: three for the server, two for directories."""
_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.02
_AUTOPSY_SECONDS = 2.0
"""For the keeper to notice, after a client did, that the server is gone."""

_running: weakref.WeakSet[KeeperProcess] = weakref.WeakSet()


class KeeperProcess:
    """A keeper with its order: to be listened to while the server starts, and to be stopped at the end."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._forked = False
        self._unread = b""
        # Unbuffered: a buffer's lock could be held by another thread when the process forks.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _KEEPER],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        if self._process.stdin is None or self._process.stdout is None:  # pragma: no cover
            raise AssertionError
        self._input, self._output = self._process.stdin, self._process.stdout
        _running.add(self)
        _close_in_forks()
        left = memoryview(json.dumps(order).encode() + b"\n")
        while left:
            left = left[os.write(self._input.fileno(), left) :]

    def line(self, seconds: float) -> str | None:
        """Return the next line that the keeper says, or None where it says none for this long."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._output], [], [], left)[0]:
                return None
            more = os.read(self._output.fileno(), 4096)
            if not more:
                return "ended its keeper was stopped"
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def stop(self, *, seed: bool = False) -> None:
        """Have the keeper stop the server and clean up, and wait for it; where it was killed, do its work.

        With `seed`, the data are first made the seed that the order names.
        """
        if self._forked:
            return
        if seed:
            with suppress(BrokenPipeError):
                os.write(self._input.fileno(), b"seed\n")
        _running.discard(self)
        self._input.close()
        # Told as well, for a process that was started without our knowledge may hold the input open.
        self._process.terminate()
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._output.close()
        if code != 0:
            _stop_server(Path(self._order["data"]))
            for directory in self._order["remove"]:
                _remove(Path(directory))

    def autopsy(self) -> str:
        """Say what became of the server, if it ended by itself; nothing while it runs."""
        line = self.line(_AUTOPSY_SECONDS)
        while line is not None:
            word, _, reason = line.partition(" ")
            if word == "ended":
                return _in_words(reason)
            line = self.line(_AUTOPSY_SECONDS)
        return ""

    def hand_over(self) -> str:
        """Have the keeper and its server outlive this process; return the command that ends them."""
        _running.discard(self)
        os.write(self._input.fileno(), b"outlive\n")
        self._input.close()
        self._output.close()
        # It is nobody's child to wait for any more, and Popen would warn of it.
        self._process.returncode = 0
        return f"kill {self._process.pid}"

    def forget(self) -> None:
        """Let go of the keeper in a forked child, which would keep the server alive and must not stop it."""
        self._forked = True
        self._input.close()
        self._output.close()


def _in_words(reason: str) -> str:
    """Say by name which signal ended the server: `the server stopped with status -9`, as the keeper has it."""
    status = reason.rpartition(" status ")[2]
    with suppress(ValueError):
        if (number := int(status)) < 0:
            return f"the server was ended by {signal.Signals(-number).name}"
    return reason


@functools.cache
def _close_in_forks() -> None:
    def forget_all() -> None:
        for keeper in list(_running):
            keeper.forget()

    os.register_at_fork(after_in_child=forget_all)


def _stop_server(data: Path) -> None:
    """Stop the server of these data, if one runs that nobody keeps any more."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        deadline = time.monotonic() + _GRACE_SECONDS
        pid = _server(data)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        while _server(data) == pid and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _server(data: Path) -> int | None:
    """Return the process that serves these data; a file that a crash left may name any other, or none."""
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        if sys.platform == "linux":
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return pid if os.fsencode(data) in words else None
    except (OSError, ValueError):
        return None
    answer = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return pid if f"-D {data} " in answer.stdout else None


def _remove(directory: Path) -> None:
    """Remove a directory, and again while the last processes of a server still write into it."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            time.sleep(_POLL_SECONDS)
