"""Files as they lie there: their line endings, and the room that is left beside them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.doctor.finding import Finding, ok, unknown, warning, wrong
from devtools.doctor.settings import FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devtools.doctor.checkout import Checkout
    from devtools.doctor.engine import Docker

ROOM_NAMES = ("disk/checkout", "disk/docker", "disk/memory")
SHOWN = 3
_MADE = frozenset({".git", ".venv", ".nox", ".dev", "node_modules", "__pycache__", ".hypothesis"})
_LARGEST_SCRIPT = 1_000_000
MEGABYTE = 1024 * 1024
GIGABYTE = 1024
"""In megabytes, as what follows."""
ROOM_IN_MEMORY = 512
"""What an embedded server of the tests looks for."""
MEMORY = Path("/dev/shm")  # noqa: S108  where the tests' servers keep their data, by the system's own name


def check_line_endings(checkout: Checkout) -> list[Finding]:
    name = "files/line-endings"
    scripts = [checkout.shown(path) for path in _scripts(checkout.root) if _has_crlf(path)]
    settings = [
        each for each in FILES if (checkout.root / each).is_file() and _has_crlf(checkout.root / each)
    ]
    found = []
    if scripts:
        more = f" and {len(scripts) - SHOWN} more" if len(scripts) > SHOWN else ""
        found.append(
            wrong(
                name,
                f"{', '.join(scripts[:SHOWN])}{more} {'ends its' if len(scripts) == 1 else 'end their'} lines by CRLF, "
                "and so will not start.",
                "Have your editor save it with LF; where Git made it so, `git config core.autocrlf false`, and check "
                "out anew what is named.",
            )
        )
    if settings:
        found.append(
            warning(
                name,
                f"{' and '.join(settings)} {'ends its' if len(settings) == 1 else 'end their'} lines by CRLF: to "
                "Compose and Python that is nothing, to a shell it is part of each value.",
                "Have your editor save it with LF.",
            )
        )
    return found or [ok(name, "Every script and .env ends its lines by LF.")]


def _scripts(root: Path) -> Iterator[Path]:
    """Give what a shell or the kernel reads by lines: scripts, by their name or their first two bytes."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(folder for folder in folders if folder not in _MADE)
        for name in sorted(names):
            path = Path(place) / name
            # Not a pipe, which would be waited for.
            if path.is_file() and (
                name.endswith((".sh", ".bash")) or name == "Dockerfile" or _begins(path, b"#!")
            ):
                yield path


def _begins(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _has_crlf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\r\n" in file.read(_LARGEST_SCRIPT)
    except OSError:
        return False


def check_room(checkout: Checkout, ask: Callable[[], Docker]) -> list[Finding]:
    found = [room("disk/checkout", "the checkout", checkout.root, few=200, wanted=1000)]
    docker = ask()
    place = Path(docker.info.get("DockerRootDir") or "/nonexistent")
    if docker.answers and docker.is_local and place.is_dir():
        found.append(room("disk/docker", "Docker's images and volumes", place, few=500, wanted=3000))
    elif docker.answers:
        cure = "`docker system df` says what is used."
        found.append(unknown("disk/docker", "Docker's disk is not this machine's.", cure))
    else:
        found.append(unknown("disk/docker", "Docker's engine does not answer."))
    if sys.platform == "linux":
        found.append(memory(MEMORY))
    return found


def room(name: str, whose: str, place: Path, *, few: int, wanted: int) -> Finding:
    """Tell the room that is left; less than `wanted` megabytes is worth a warning, less than a `few` is too little."""
    usage, nodes = shutil.disk_usage(place), os.statvfs(place)
    free = usage.free // MEGABYTE
    finding = f"{_size(free)} free for {whose}, at {place}"
    cure = (
        "Make room: `docker system df` and `docker builder prune` for Docker's, `du -sh ~/.cache` for yours."
    )
    if nodes.f_files and not nodes.f_favail:
        return wrong(name, f"There is no inode left for {whose}, at {place}: no file can be made.", cure)
    if free < few:
        return wrong(name, f"Only {finding}: it is full.", cure)
    if free < wanted:
        return warning(name, f"Only {finding}.", cure)
    return ok(name, f"{finding}.")


def memory(place: Path) -> Finding:
    name = "disk/memory"
    cure = "Make room in it, or in a container start that with `--shm-size 1g`."
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return warning(name, f"There is no {place}: the tests' servers keep their data on a disk.", cure)
    free = usage.free // MEGABYTE
    if free < ROOM_IN_MEMORY:
        return warning(
            name, f"Only {_size(free)} free in {place}: the tests' servers keep their data on a disk.", cure
        )
    return ok(name, f"{_size(free)} free in memory, at {place}.")


def _size(megabytes: int) -> str:
    return f"{megabytes / GIGABYTE:.1f} GB" if megabytes >= GIGABYTE else f"{megabytes} MB"
