"""Environments beside the session's own: made once under .nox, and made anew when what they hold changes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_STAMP = "made-from"


class EnvironmentUnavailable(Exception):  # noqa: N818 (it says what is so)
    """An environment cannot be made; the message is what uv said."""


def environment(path: Path, requirements: Sequence[Path], *, python: str = sys.executable) -> Path:
    """Return the Python of an environment that holds these requirements, made by uv if it is not there yet.

    One that is there and was made from the same files is taken as it is, without asking any index. Raises
    EnvironmentUnavailable.
    """
    stamp, interpreter = path / _STAMP, path / "bin" / "python"
    digest = hashlib.sha256(python.encode())
    for file in requirements:
        digest.update(file.read_bytes())
    if interpreter.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == digest.hexdigest():
        return interpreter
    # Never half: without its stamp it is made anew.
    shutil.rmtree(path, ignore_errors=True)
    _uv("venv", "--quiet", "--no-project", "--python", python, str(path))
    files = [word for file in requirements for word in ("--requirement", str(file))]
    _uv("pip", "install", "--quiet", "--compile-bytecode", "--python", str(interpreter), *files)
    stamp.write_text(digest.hexdigest(), encoding="utf-8")
    return interpreter


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uv", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EnvironmentUnavailable(" ".join(done.stderr.split()) or f"uv exited with {done.returncode}")
