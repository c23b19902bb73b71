"""The folder of seeds: data directories made once, from which the servers of later runs grow.

It lies in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`, on macOS `~/Library/Caches`) and belongs to the
user alone: a server runs what its data say, so a folder that anybody else could write to is not used. Where there is
none that can be used, or it is full or read-only, everything works without.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NAME = "postgres-for-tests"
KEPT_DAYS = 14
KEPT_OF_A_KIND = 5
_ABANDONED_SECONDS = 3600.0
_DAY_SECONDS = 86400.0
_SUFFIX = ".seed"

Kind = Literal["bare", "template"]


@dataclass(frozen=True)
class Entry:
    """A seed that is there: where, what kind, its size in bytes, and its last use in seconds since the epoch."""

    path: Path
    kind: str
    size: int
    used: float


def folder() -> Path | None:
    """Return where the seeds of this user lie, whether the folder is there or not; None for a user without a home."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if sys.platform != "darwin" and os.path.isabs(named):  # noqa: PTH117 (the specification's rule, on its text)
        return Path(named) / NAME
    home = os.environ.get("HOME") or _home()
    if not os.path.isabs(home):  # noqa: PTH117 (as above)
        return None
    return Path(home) / ("Library/Caches" if sys.platform == "darwin" else ".cache") / NAME


def _home() -> str:
    with suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_dir
    return ""


def usable_folder() -> Path | None:
    """Return the folder, made if need be, if it and what leads to it are this user's own; None otherwise."""
    place = folder()
    if place is None:
        return None
    home = place.parent
    try:
        # Root with a user's HOME, as sudo keeps it, leaves nothing in that home, and trusts nothing in it.
        if not home.exists() and home.parent.stat().st_uid == os.geteuid():
            home.mkdir(mode=0o700, exist_ok=True)
        if home.stat().st_uid != os.geteuid():
            return None
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return place if ours and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def place_of(kind: Kind, key: str) -> Path | None:
    """Return where the seed of this kind and key is, or would be."""
    place = usable_folder()
    return None if place is None else place / f"{kind}-{key}{_SUFFIX}"


def entries() -> list[Entry]:
    """Return the seeds that are there, the last used first."""
    place = folder()
    found = []
    for path in place.glob(f"*{_SUFFIX}") if place is not None else ():
        # Another process may remove it meanwhile.
        with suppress(OSError):
            status = path.lstat()
            found.append(Entry(path, path.name.partition("-")[0], status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def prune(now: float | None = None) -> None:
    """Remove seeds that were not used for KEPT_DAYS, all but the KEPT_OF_A_KIND last used, and what killed runs left.

    One that is being read stays readable: it is read from a descriptor that is open.
    """
    now = time.time() if now is None else now
    kept: dict[str, int] = {}
    for entry in entries():
        kept[entry.kind] = kept.get(entry.kind, 0) + 1
        if kept[entry.kind] > KEPT_OF_A_KIND or now - entry.used > KEPT_DAYS * _DAY_SECONDS:
            _remove(entry.path)
    place = folder()
    for path in place.glob("*.making") if place is not None else ():
        with suppress(OSError):
            if now - path.lstat().st_mtime > _ABANDONED_SECONDS:
                _remove(path)


def clear() -> int:
    """Remove all seeds; return how many there were."""
    found = entries()
    for entry in found:
        _remove(entry.path)
    prune(now=time.time() + 2 * _ABANDONED_SECONDS)
    return len(found)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
