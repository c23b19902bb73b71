"""Directories with an owner, and ports."""

# Importing pathlib would double this process's start, which every server's start waits for.
# ruff: noqa: PTH102, PTH104, PTH118, PTH120

import os
import shutil
import socket
import time

GRACE_SECONDS = 5.0


def make(directory: str, owner: tuple[int, int]) -> None:
    """Make a directory that its owner alone can enter."""
    os.mkdir(directory, 0o700)
    os.chown(directory, *owner)


def remove(directory: str) -> None:
    """Remove a directory, and again while the last processes of a server still write into it."""
    deadline = time.monotonic() + GRACE_SECONDS
    while os.path.lexists(directory):
        shutil.rmtree(directory, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        if os.path.lexists(directory):
            time.sleep(0.02)


def copy_programs(final: str, copies: list[tuple[str, str]], owner: tuple[int, int]) -> None:
    """Copy the programs for an account that cannot reach them, in place of those of another version."""
    shelf, making = os.path.dirname(final), f"{final}.making"
    remove(shelf)
    make(shelf, owner)
    for source, name in copies:
        shutil.copytree(source, os.path.join(making, name), symlinks=True)
    for place, _, files in os.walk(making):
        for name in (place, *(os.path.join(place, file) for file in files)):
            os.chown(name, *owner, follow_symlinks=False)
    os.rename(making, final)


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
