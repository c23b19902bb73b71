"""A process that owns one PostgreSQL server and outlives its owner by just long enough to stop it.

It runs by path, with nothing but the standard library, in a session of its own, so that Ctrl-C in a terminal reaches
the application first. Its first line of input is the order, in JSON; the input's end means that the owner has
stopped, crashed or was killed, and then the server is stopped, and an ephemeral directory removed. An owner that
wrote `keep` before is outlived: then SIGTERM alone ends it all. On its output it says, a line each, `serving PORT`
and `ended REASON`.
"""

# Importing pathlib would double this process's start, which every server's start waits for.
# ruff: noqa: PTH102, PTH104, PTH108, PTH118, PTH120, PTH123

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any, NoReturn

GRACE_SECONDS = 5.0
PORT_ATTEMPTS = 5


class OwnerGone(Exception):  # noqa: N818 (an event, and no failure)
    """The input has ended, or this process was told to terminate."""


class Keeper:
    """Runs the programs of one order, one at a time, and watches the owner meanwhile."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.child: subprocess.Popen[bytes] | None = None
        self.wake, wake_writer = os.pipe()
        for end in (self.wake, wake_writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        self.told_to_stop = False
        self.told_to_keep = False
        signal.signal(signal.SIGTERM, self.terminate)
        # Handlers and not SIG_IGN, which the server would inherit.
        for ignored in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, lambda *_: None)

    def terminate(self, *_: object) -> None:
        self.told_to_stop = True

    def keep(self) -> None:
        """Carry out the order; return when the owner is gone and everything is stopped."""
        try:
            self.prepare()
            self.serve()
            self.wait_for_owner()
        except OwnerGone:
            pass
        finally:
            self.stop_child()
            for directory in self.order["remove"]:
                self.remove(directory)

    def prepare(self) -> None:
        """Make what is not there yet: directories, a copy of the programs, the data."""
        order = self.order
        for directory in order["make"]:
            self.make(directory)
        if order["copies"]:
            self.copy_programs()
        if order["initdb"]:
            self.initialise()

    def make(self, directory: str) -> None:
        os.mkdir(directory, 0o700)
        os.chown(directory, *self.order["owner"])

    def copy_programs(self) -> None:
        """Copy the programs for an account that cannot reach them, in place of those of another version."""
        final: str = self.order["programs"]
        shelf, making = os.path.dirname(final), f"{final}.making"
        self.remove(shelf)
        self.make(shelf)
        for source, name in self.order["copies"]:
            shutil.copytree(source, os.path.join(making, name), symlinks=True)
        for place, _, files in os.walk(making):
            for name in (place, *(os.path.join(place, file) for file in files)):
                os.chown(name, *self.order["owner"], follow_symlinks=False)
        os.rename(making, final)

    def initialise(self) -> None:
        """Run initdb under another name: data that a killed run left half-made never have the final one."""
        order = self.order
        making, final = order["making"], order["data"]
        self.remove(making)
        self.make(making)
        password_file = making + ".password"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(password_file)
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.fchown(descriptor, *order["owner"])
            os.write(descriptor, order["password"].encode() + b"\n")
            os.close(descriptor)
            code = self.run([*order["initdb"], "--pwfile=" + password_file, "--pgdata=" + making])
        finally:
            os.unlink(password_file)
        if code != 0:
            self.tell(f"ended initdb failed with status {code}")
            self.wait_for_owner()
        os.rename(making, final)

    def serve(self) -> None:
        """Start the server, again on another port if somebody was quicker to take the one that was free."""
        port = self.order["port"]
        for _ in range(PORT_ATTEMPTS):
            port = free_port(port)
            code = self.run(
                [*self.order["server"], "-D", self.order["data"], "-p", str(port)], f"serving {port}"
            )
            if not self.port_was_taken():
                break
            port = 0
        self.tell(f"ended the server stopped with status {code}")

    def port_was_taken(self) -> bool:
        with open(self.order["log"], "rb") as log:
            return b"could not create any TCP/IP sockets" in log.read()[-4000:]

    def run(self, command: list[str], announcement: str | None = None) -> int:
        """Run a program as the server's identity until it ends; return its status."""
        account: dict[str, Any] = {}
        if self.order["account"]:
            user, group = self.order["account"]
            account = {"user": user, "group": group, "extra_groups": []}
        with open(self.order["log"], "wb") as log:
            child = subprocess.Popen(
                self.order["prefix"] + command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.order["environment"],
                **account,
            )
        self.child = child
        if announcement:
            self.tell(announcement)
        while (status := child.poll()) is None:
            self.watch()
        self.child = None
        return status

    def wait_for_owner(self) -> NoReturn:
        while True:
            self.watch()

    def watch(self) -> None:
        """Sleep until something happens; raise OwnerGone if it was the owner's end."""
        ready, _, _ = select.select([self.wake] if self.told_to_keep else [0, self.wake], [], [])
        if self.wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)
        said = os.read(0, 4096) if 0 in ready else None
        if said == b"keep\n":
            self.told_to_keep = True
            # The owner's, which whoever reads it would wait on for as long as the server runs.
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), 2)
        if self.told_to_stop or said == b"":
            raise OwnerGone

    def stop_child(self) -> None:
        if self.child is None:
            return
        # A fast shutdown first, then an immediate one, then none of PostgreSQL's.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(number)
            deadline = time.monotonic() + GRACE_SECONDS
            while self.child.poll() is None and (left := deadline - time.monotonic()) > 0:
                select.select([self.wake], [], [], left)
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake, 4096)
            if self.child.poll() is not None:
                return

    def remove(self, directory: str) -> None:
        """Remove a directory, and again while the last processes of a server still write into it."""
        deadline = time.monotonic() + GRACE_SECONDS
        while os.path.lexists(directory):
            shutil.rmtree(directory, ignore_errors=True)
            if time.monotonic() > deadline:
                return
            if os.path.lexists(directory):
                time.sleep(0.02)

    def tell(self, line: str) -> None:
        # The owner may be gone, and then nobody needs to know.
        with contextlib.suppress(BrokenPipeError):
            os.write(1, line.encode() + b"\n")


def free_port(wanted: int) -> int:
    """Return the wanted port if it is free, else one that the kernel chooses."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port is free on 127.0.0.1")


def read_order() -> dict[str, Any]:
    """Read the first line of input, byte by byte, so that nothing after it is swallowed."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 65536)
        if not byte:
            sys.exit(0)
        line += byte
    order: dict[str, Any] = json.loads(line)
    return order


if __name__ == "__main__":
    keeper = Keeper(read_order())
    try:
        keeper.keep()
    except OSError as error:
        keeper.tell(f"ended {error}")
        sys.exit(1)
