"""The process that owns an embedded server and outlives its own parent just long enough to stop the server.

It is run by path, in isolated mode, and imports only the standard library, because every start waits for it. It
reads one JSON object per line from its standard input:

- `{"remove": [directory, ...]}`: remove these at the end;
- `{"start": {"command", "log", "environment", "user", "group", "lock"}}`: start a server, and when it ends write its
  status on a line;
- `{"leave": true}`: outlive the parent; then SIGTERM alone ends the server.

The end of the input means that the parent has stopped, crashed or was killed: the server is stopped and the
directories are removed.
"""

# Importing pathlib would double the time that this process takes to start.
# ruff: noqa: PTH123

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from typing import Any

STOP_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 3.0))
"""PostgreSQL's fast shutdown, its immediate shutdown, and the end; each with the seconds that it is given."""
REMOVE_SECONDS = 5.0


class Supervisor:
    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self.remove: list[str] = []
        self.unread = b""
        self.ending = False
        self.left_alone = False
        self.wake, writer = os.pipe()
        for end in (0, self.wake, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self.end)
        # Handlers and not SIG_IGN, which the server would inherit.
        for ignored in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, lambda *_: None)

    def end(self, *_: object) -> None:
        self.ending = True

    def run(self) -> None:
        while not self.ending:
            ready = select.select([self.wake] if self.left_alone else [0, self.wake], [], [])[0]
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)
            if 0 in ready:
                self.read()
            if self.child is not None and (status := self.child.poll()) is not None:
                self.child = None
                self.say(status)
        self.stop()
        for directory in self.remove:
            remove(directory)

    def read(self) -> None:
        received = os.read(0, 65536)
        self.ending = self.ending or not received
        *lines, self.unread = (self.unread + received).split(b"\n")
        for line in lines:
            order = json.loads(line)
            self.remove += order.get("remove", [])
            if "start" in order:
                self.start(order["start"])
            if "leave" in order:
                self.leave()

    def start(self, order: dict[str, Any]) -> None:
        account: dict[str, Any] = {}
        if order["user"] is not None:
            account = {"user": order["user"], "group": order["group"], "extra_groups": []}
        with open(order["log"], "ab") as log:
            try:
                self.child = subprocess.Popen(
                    order["command"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=order["environment"],
                    pass_fds=[] if order["lock"] is None else [order["lock"]],
                    **account,
                )
            except OSError as error:
                log.write(f"{order['command'][0]}: {error.strerror}\n".encode())
                self.say(127)

    def leave(self) -> None:
        self.left_alone = True
        # A process that waits for the end of the parent's output must not wait for this one.
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)

    def stop(self) -> None:
        for number, seconds in STOP_SIGNALS:
            if self.child is None or self.child.poll() is not None:
                return
            self.child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(seconds)

    def say(self, status: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(1, b"%d\n" % status)


def remove(directory: str) -> None:
    """Remove a directory, again and again while the last processes of a server still write into it."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while os.path.lexists(directory) and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        if os.path.lexists(directory):
            time.sleep(0.02)


if __name__ == "__main__":
    Supervisor().run()
