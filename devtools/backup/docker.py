"""Docker's own command, asked with deadlines: what it cannot tell in time is not there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping

from backend.errors import UserError

_ASK_SECONDS = 15.0


def publisher_of(port: int) -> str | None:
    """Return the id of the running container that publishes this port of the machine's."""
    found = ask("ps", "--quiet", "--no-trunc", "--filter", f"publish={port}")
    return (found or "").partition("\n")[0].strip() or None


def version_in(container: str, program: str) -> int | None:
    """Return the major version that a program in a container says it is of."""
    said = ask("exec", container, program, "--version")
    found = re.search(r"\(PostgreSQL\) (\d+)", said or "")
    return int(found[1]) if found else None


def has_image(image: str) -> bool:
    return ask("image", "inspect", "--format", "{{.Id}}", image) is not None


def ask(*arguments: str, seconds: float = _ASK_SECONDS) -> str | None:
    """Return what a docker command says; None where there is no docker, it fails, or it takes too long."""
    if shutil.which("docker") is None:
        return None
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def run(*arguments: str, environment: Mapping[str, str] | None = None, seconds: float | None = None) -> str:
    """Run a docker command to its end and return what it says. Raises UserError with its own last words."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
            env=os.environ | (environment or {}), start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"Docker does not answer: {error}.") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip() and "--help" not in line]
        raise UserError(f"Docker refused: {lines[-1].strip() if lines else 'without a word'}")
    return done.stdout


def pull(image: str) -> None:
    """Have an image, pulled if need be, with Docker's own progress. Raises UserError."""
    if has_image(image):
        return
    done = subprocess.run(["docker", "pull", image], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise UserError(f"The image {image} is not here, and cannot be pulled: pull it, and try again.")
