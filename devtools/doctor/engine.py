"""Docker: its command, its engine, Compose, and the engine's clock."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from devtools.doctor.clock import told
from devtools.doctor.command import NotThereError
from devtools.doctor.finding import Finding, ok, unknown, warning, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devtools.doctor.checkout import Checkout

NAMES = ("docker/command", "docker/engine", "docker/compose", "docker/clock")
ANSWER_SECONDS = 6.0
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
# `start_interval` of a health check, and the dev container's `post_start`.
LEAST_ENGINE, LEAST_COMPOSE, LEAST_COMPOSE_TO_DEVELOP_IN = (25,), (2, 20, 2), (2, 30)
_LATE = "it took longer than its time"
WITHOUT = "without it `nox -s dev` and the tests take an embedded PostgreSQL"


@dataclass(frozen=True)
class Docker:
    """What the docker command and the engine said of themselves."""

    address: str
    info: dict[str, Any] = field(default_factory=dict)
    """What the engine answered, empty where it did not, with what the command says of itself."""
    refusal: str = ""
    asked: float = 0.0
    answered: float = 0.0
    has_command: bool = False
    version: str = ""
    """That of the command."""
    compose: str = ""
    """That of Compose; an empty string where it is not there."""

    @property
    def answers(self) -> bool:
        return bool(self.info.get("ServerVersion"))

    @property
    def is_late(self) -> bool:
        return self.refusal == _LATE

    @property
    def is_local(self) -> bool:
        return self.address.startswith("unix://")


def look(checkout: Checkout) -> Docker:
    """Ask the docker command, or the engine's socket where there is no command."""
    address = checkout.environment.get("DOCKER_HOST", "").strip()
    asked = time.time()
    try:
        said = checkout.run("docker", "info", "--format", "{{json .}}", seconds=ANSWER_SECONDS)
    except NotThereError:
        return _look_at_socket(address or DEFAULT_SOCKET)
    answered = time.time()
    info: dict[str, Any] = {}
    with suppress(ValueError):
        info = json.loads(said.out)
    client = info.get("ClientInfo") or {}
    if not address:
        # As the command resolves it; which that is decides where data and clock are.
        form = ("--format", "{{.Endpoints.docker.Host}}")
        address = checkout.run(
            "docker", "context", "inspect", client.get("Context", "default"), *form
        ).out.strip()
    refusal = _LATE if said.is_late else " ".join(info.get("ServerErrors") or [])
    return Docker(
        address or DEFAULT_SOCKET, info, refusal or said.error, asked, answered,
        has_command=True, version=client.get("Version", ""), compose=_compose_version(checkout, client),
    )  # fmt: skip


def _compose_version(checkout: Checkout, client: dict[str, Any]) -> str:
    if "Plugins" in client:
        plugins = client["Plugins"] or []
        return next((plugin.get("Version", "") for plugin in plugins if plugin.get("Name") == "compose"), "")
    # The command waited for its engine, and has not come to say it.
    said = checkout.run("docker", "compose", "version", "--short")
    return said.out.strip() if said.code == 0 else ""


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _look_at_socket(address: str) -> Docker:
    if not address.startswith("unix://"):
        return Docker(address, refusal="it is not a socket of this machine")
    connection = _SocketConnection(address.removeprefix("unix://"))
    asked = time.time()
    try:
        connection.request("GET", "/info")
        info = json.loads(connection.getresponse().read())
    except PermissionError:
        return Docker(address, refusal="permission denied")
    except (OSError, ValueError, http.client.HTTPException):
        return Docker(address)
    finally:
        connection.close()
    return Docker(address, info, asked=asked, answered=time.time())


def check(ask: Callable[[], Docker], *, is_workspace: bool = False) -> list[Finding]:
    docker = ask()
    if is_workspace and not docker.has_command:
        return [*_handed_in(docker), _clock(docker)]
    return [_command(docker), *_engine(docker), _compose(docker), _clock(docker)]


def _handed_in(docker: Docker) -> Iterator[Finding]:
    """Tell of the dev container, where Docker is the host's business."""
    yield ok(NAMES[0], "The dev container has no docker command, and needs none.")
    if docker.answers:
        yield from _engine(docker)
    else:
        yield ok(
            NAMES[1],
            "No engine is handed in (WORKSPACE_DOCKER_SOCKET), so the tests take an embedded PostgreSQL.",
        )
    yield ok(NAMES[2], "Compose is on the host.")


def _command(docker: Docker) -> Finding:
    if not docker.has_command:
        return warning(
            "docker/command",
            "The docker command is not on PATH.",
            f"Install Docker with Compose (https://docs.docker.com/get-started/get-docker/); {WITHOUT}.",
        )
    return ok("docker/command", f"Docker {docker.version}." if docker.version else "It is on PATH.")


def _engine(docker: Docker) -> Iterator[Finding]:
    place = without_user(docker.address)
    if docker.answers:
        version = docker.info["ServerVersion"]
        if numbers(version) < LEAST_ENGINE:
            yield wrong(
                "docker/engine",
                f"Docker's engine is {version}, and compose.yaml needs 25.",
                "Bring Docker up to date.",
            )
        else:
            yield ok("docker/engine", f"Engine {version} answers at {place}.")
    elif "permission denied" in docker.refusal.lower():
        yield warning(
            "docker/engine",
            f"Docker's engine at {place} may not be asked by this user.",
            f"`sudo usermod -aG docker $USER`, then log in anew; {WITHOUT}.",
        )
    else:
        late = " in time" if docker.is_late else ""
        yield warning(
            "docker/engine",
            f"Docker's engine does not answer{late} at {place}.",
            f"Start Docker, or set DOCKER_HOST to where it is; {WITHOUT}.",
        )


def _compose(docker: Docker) -> Finding:
    name, version = "docker/compose", docker.compose
    if not docker.has_command:
        return unknown(name, "There is no docker command to ask.")
    if not version and docker.is_late:
        return unknown(name, "The docker command does not answer in time.")
    if not version:
        return warning(
            name,
            "Docker is here without its compose plugin.",
            f"Install it (https://docs.docker.com/compose/install/); {WITHOUT}.",
        )
    if numbers(version) < LEAST_COMPOSE:
        return wrong(
            name, f"Compose is {version}, and compose.yaml needs 2.20.2.", "Bring Compose up to date."
        )
    if numbers(version) < LEAST_COMPOSE_TO_DEVELOP_IN:
        return warning(
            name, f"Compose is {version}, and the dev container needs 2.30.", "Bring Compose up to date."
        )
    return ok(name, f"Compose {version.removeprefix('v')}.")


def _clock(docker: Docker) -> Finding:
    name = "docker/clock"
    if not docker.answers:
        return unknown(name, "Docker's engine does not answer.")
    try:
        theirs = datetime.fromisoformat(docker.info.get("SystemTime", "")).timestamp()
    except ValueError:
        return unknown(name, "The engine does not tell its time.")
    return told(name, "The engine's clock", theirs, docker.asked, docker.answered)


def numbers(version: str) -> tuple[int, ...]:
    """Read a version, as `v2.40.3-3`, for comparing; what is no number of it is left out."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in found[1].split(".")) if found else ()


def without_user(address: str) -> str:
    """Leave out who logs in to an engine far away, and by what password."""
    return re.sub(r"//[^/\s]*@", "//", address)
