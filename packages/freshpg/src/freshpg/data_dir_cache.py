"""Data directories as `initdb` made them, kept in the user's cache and copied, because initdb takes most of a start.

Nothing depends on the cache: if an entry or the directory itself cannot be used, servers start without it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .binaries import Binaries


_ENTRIES = 5
"""So many are kept, each of about 40 MB: one for each version and build that is in use."""


def cache_directory() -> Path:
    # Path.home raises if there is no home.
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "freshpg"  # noqa: PTH111


def entry_for(binaries: Binaries, arguments: Sequence[str]) -> Path:
    """Return where the data directory made by these programs with these arguments is kept."""
    # The size tells builds of one version apart; the same wheel in two environments is one build.
    known = (binaries.version, Path(binaries.program("postgres")).stat().st_size, *arguments)
    return cache_directory() / hashlib.sha256(repr(known).encode()).hexdigest()[:32]


def copy(entry: Path, data: Path) -> str | None:
    """Copy a kept data directory; return its superuser's password, or None if the entry is of no use."""
    try:
        found = entry.lstat()
        # A user who can write to a data directory decides what its server runs.
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
        password = (entry / "password").read_text(encoding="utf-8")
        data.mkdir(mode=0o700)
        # -o: the files belong to the user who extracts them.
        _tar("-x", "-o", "-f", str(entry / "data.tar"), "-C", str(data))
    except (OSError, UnicodeDecodeError, subprocess.CalledProcessError):
        shutil.rmtree(data, ignore_errors=True)
        return None
    return password


def keep(entry: Path, data: Path, password: str) -> None:
    """Keep a data directory that no server has run on; do nothing if that fails."""
    making = entry.with_name(f"{entry.name}.{secrets.token_hex(4)}")
    with suppress(OSError, subprocess.CalledProcessError):
        making.mkdir(mode=0o700, parents=True)
        try:
            _tar("-c", "-f", str(making / "data.tar"), "-C", str(data), ".")
            (making / "password").write_text(password, encoding="utf-8")
            if entry.exists():
                entry.rename(making.with_suffix(".old"))
            making.rename(entry)
        finally:
            discard(making)
            for old in (making.with_suffix(".old"), *_by_age(entry.parent)[:-_ENTRIES]):
                discard(old)


def _by_age(directory: Path) -> list[Path]:
    return sorted(directory.iterdir(), key=lambda entry: entry.stat().st_mtime)


def discard(entry: Path) -> None:
    shutil.rmtree(entry, ignore_errors=True)


def _tar(*arguments: str) -> None:
    # From one file, by a program: four times as fast as shutil.copytree, and twice as fast as cp.
    subprocess.run(["tar", *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)
