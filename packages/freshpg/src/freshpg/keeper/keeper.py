"""A process that owns one PostgreSQL server and outlives its owner by just long enough to stop it.

It runs with nothing but the standard library, in a session of its own, so that Ctrl-C in a terminal reaches
the application first. Its first line of input is the order, in JSON; the input's end means that the owner has
stopped, crashed or was killed, and then the server is stopped, and an ephemeral directory removed. If the line
`seed` came before, the data are first made a seed. An owner that wrote `outlive` is outlived: then SIGTERM alone ends
it all. On its output it says, a line each, `serving PORT`, `ended REASON`, and `broken PATH<tab>REASON` of a seed
that is of no use and was removed.
"""

# Importing pathlib would double this process's start, which every server's start waits for.
# ruff: noqa: PTH102, PTH104, PTH108, PTH123

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, NoReturn

from . import archive
from .places import GRACE_SECONDS, copy_programs, free_port, make, remove

PORT_ATTEMPTS = 5


class OwnerGone(Exception):  # noqa: N818 (an event, and no failure)
    """The input has ended, or this process was told to terminate."""


class Keeper:
    """Runs the programs of one order, one at a time, and watches the owner meanwhile."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.child: subprocess.Popen[bytes] | None = None
        self.secret = b""
        self.seed: str | None = None
        self.arguments: list[str] = []
        self.heard = b""
        os.set_blocking(0, False)
        self.wake, wake_writer = os.pipe()
        for end in (self.wake, wake_writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        self.told_to_stop = False
        self.outlives_owner = False
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
            stopped_cleanly = self.stop_child()
            if stopped_cleanly and self.secret and b"seed\n" in self.heard:
                self.store(self.order["store_at_end"], self.secret)
            for directory in self.order["remove"]:
                remove(directory)

    def prepare(self) -> None:
        """Make what is not there yet: directories, a copy of the programs, the data."""
        order = self.order
        for directory in order["make"]:
            # It stays ours: what the server's account may write to, another process of that account may replace.
            os.mkdir(directory, 0o711 if order["account"] else 0o700)
        if order["copies"]:
            copy_programs(order["programs"], order["copies"], order["owner"])
        self.arguments = order["unseeded"]
        if order["initdb"] and not self.grow():
            self.initialise()

    def grow(self) -> bool:
        """Take the data from the first seed that is there and whole; return False where none is."""
        order = self.order
        for seed in order["seeds"]:
            try:
                make(order["data"], order["owner"])
                known = archive.extract(seed["path"], order["data"], order["owner"])
                self.secret = archive.set_secret(order["data"], known, order["secret"])
            except FileNotFoundError:
                remove(order["data"])
            except (archive.BrokenSeed, ValueError, KeyError) as error:
                self.discard(seed["path"], str(error))
            else:
                self.arguments, self.seed = seed["arguments"], seed["path"]
                with contextlib.suppress(OSError):
                    # Its last use.
                    os.utime(self.seed)
                return True
        return False

    def discard(self, seed: str, reason: str) -> None:
        """Remove a seed that is of no use, and what grew from it."""
        self.seed = None
        remove(self.order["data"])
        with contextlib.suppress(OSError):
            os.unlink(seed)
        self.tell(f"broken {seed}\t{reason}")

    def store(self, seed: str, secret: bytes) -> None:
        """Make the data a seed, if that can be: a cache that is full or read-only is none."""
        with contextlib.suppress(OSError, archive.BrokenSeed):
            archive.write(self.order["data"], seed, secret)

    def initialise(self) -> None:
        """Run initdb, and make what it made a seed if there is to be one: under a password that nobody knows."""
        order = self.order
        if order["store"]:
            self.run_initdb(os.urandom(24).hex())
            try:
                known = archive.find_secret(order["data"])
                self.store(order["store"], known)
                self.secret = archive.set_secret(order["data"], known, order["secret"])
            except (OSError, archive.BrokenSeed):
                remove(order["data"])
            else:
                return
        self.run_initdb(order["password"])

    def run_initdb(self, password: str) -> None:
        """Initialise under another name: data that a killed run left half-made never have the final one."""
        order = self.order
        making, final = order["making"], order["data"]
        remove(making)
        make(making, order["owner"])
        password_file = making + ".password"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(password_file)
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.fchown(descriptor, *order["owner"])
            os.write(descriptor, password.encode() + b"\n")
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
            command = [*self.order["server"], *self.arguments, "-D", self.order["data"], "-p", str(port)]
            code = self.run(command, f"serving {port}")
            if self.seed and not self.log_has(b"ready to accept connections", b"No space left on device"):
                self.discard(self.seed, "the server does not start from it")
                self.arguments = self.order["unseeded"]
                self.initialise()
            elif not self.log_has(b"could not create any TCP/IP sockets"):
                break
            port = 0
        self.tell(f"ended the server stopped with status {code}")

    def log_has(self, *words: bytes) -> bool:
        with open(self.order["log"], "rb") as log:
            text = log.read()
        return any(word in text for word in words)

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
        ready, _, _ = select.select([self.wake] if self.outlives_owner else [0, self.wake], [], [])
        if self.wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)
        said = None
        if not self.outlives_owner:
            # Read even where there is a signal to follow, for a word may have come before it.
            with contextlib.suppress(BlockingIOError):
                said = os.read(0, 4096)
            self.heard += said or b""
            if b"outlive\n" in self.heard:
                self.outlive_owner()
        if self.told_to_stop or said == b"":
            raise OwnerGone

    def outlive_owner(self) -> None:
        """Listen to signals alone from now on, and let go of what whoever reads it waits on: the owner's stderr."""
        self.outlives_owner = True
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)

    def stop_child(self) -> bool:
        """Stop what runs; return whether it was a server that has written everything down."""
        if self.child is None:
            return False
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
                return number == signal.SIGINT and self.child.returncode == 0
        return False

    def tell(self, line: str) -> None:
        # The owner may be gone, and then nobody needs to know.
        with contextlib.suppress(BrokenPipeError):
            os.write(1, line.encode() + b"\n")


def read_order() -> dict[str, Any]:
    """Read the first line of input, which nothing follows before the server runs."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 65536)
        if not byte:
            sys.exit(0)
        line += byte
    order: dict[str, Any] = json.loads(line)
    return order


def main() -> None:
    keeper = Keeper(read_order())
    try:
        keeper.keep()
    except OSError as error:
        keeper.tell(f"ended {error.strerror or error} in {keeper.order['data']}")
        sys.exit(1)
