"""Docker's own command, asked with deadlines: what it cannot tell in time is not there."""

import re
import shutil
import subprocess

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
