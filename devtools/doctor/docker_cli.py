"""Information from the docker command about the engine and the checkout's Compose project, with a time limit."""

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 8.0
NOT_INSTALLED, LATE = 127, 124
"""Exit codes of `run`, the same as those of the shell and of `timeout`."""


@dataclass(frozen=True)
class Docker:
    """The docker command's information about itself and the engine that it talks to."""

    context: str = ""
    """The context in use; empty if there is no docker command."""
    address: str | None = None
    """The address of the engine of that context, without credentials; None if there is no such context."""
    info: dict[str, Any] = field(default_factory=dict)
    """What `docker info` prints; empty if it took too long or could not look for an engine."""

    @property
    def answers(self) -> bool:
        return bool(self.info.get("ServerVersion"))

    @property
    def compose(self) -> str:
        """The version of the Compose plugin; empty if it is not installed."""
        plugins = self.info.get("ClientInfo", {}).get("Plugins") or []
        return next((str(each["Version"]) for each in plugins if each["Name"] == "compose"), "")

    @property
    def socket(self) -> Path | None:
        """The engine's socket on this machine, if it has one."""
        scheme, _, path = (self.address or "").partition("://")
        return Path(path) if scheme == "unix" else None


@dataclass(frozen=True)
class Machine:
    """Shared by the checks: the checkout, Docker, and the checkout's Compose project."""

    root: Path
    docker: Docker
    project: dict[str, Any] = field(default_factory=dict)
    """compose.yaml as Compose reads it; empty if it cannot."""

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run(*command, directory=self.root)

    def is_here(self, place: str) -> bool:
        """Whether a directory from Compose's label of a container is this checkout."""
        return Path(place).resolve() == self.root.resolve()


def examine(root: Path) -> Machine:
    docker = _look(root)
    said = run("docker", "compose", "config", "--format", "json", directory=root)
    return Machine(root, docker, json.loads(said.stdout) if said.returncode == 0 else {})


def _look(root: Path) -> Docker:
    context = run("docker", "context", "show", directory=root)
    if context.returncode == NOT_INSTALLED:
        return Docker()
    host = run("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", directory=root)
    info = run("docker", "info", "--format", "{{json .}}", directory=root).stdout
    address = without_user(host.stdout.strip()) if host.returncode in (0, LATE) else None
    return Docker(context.stdout.strip(), address, json.loads(info) if info.startswith("{") else {})


def without_user(address: str) -> str:
    return re.sub(r"//[^/\s]*@", "//", address)


def run(*command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", timeout=ANSWER_SECONDS, check=False,
        )  # fmt: skip
    except OSError:
        return subprocess.CompletedProcess(command, NOT_INSTALLED, "", "")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, LATE, "", "")
