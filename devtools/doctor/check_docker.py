"""Check Docker: the command, the engine that the command talks to, and Compose."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from devtools.doctor.docker_cli import Docker, Machine
from devtools.doctor.finding import Finding, ok, unknown, warning, wrong

CONTAINER = Path("/.dockerenv")
OLDEST_ENGINE = 25  # the first version that supports `start_interval` in a health check
INSTALL = "Install Docker with Compose (https://docs.docker.com/get-started/get-docker/)."
WITHOUT = "Without it, `nox -s dev` and the tests run an embedded PostgreSQL."


def check(machine: Machine) -> Iterator[Finding]:
    docker = machine.docker
    if docker.context:
        yield ok("command", f"Docker {docker.info.get('ClientInfo', {}).get('Version', 'is installed')}.")
        yield _engine(docker)
        yield _compose(docker)
    elif CONTAINER.exists():
        yield ok("command", "This is a container; Docker and Compose run on its host.")
    else:
        yield warning("command", "The docker command is not on PATH.", f"{INSTALL} {WITHOUT}")


def _engine(docker: Docker) -> Finding:
    if docker.answers:
        version = str(docker.info["ServerVersion"])
        number = re.match(r"v?(\d+)", version)  # an engine that somebody built may be called `dev`
        if number and int(number[1]) < OLDEST_ENGINE:
            return wrong("engine", f"Docker Engine is {version}; compose.yaml needs 25.", "Update Docker.")
        return ok("engine", f"Docker Engine {version} answers at {docker.address}.")
    if docker.address is None:
        by = "DOCKER_CONTEXT" if os.environ.get("DOCKER_CONTEXT") else "Docker's configuration"
        cure = "Unset DOCKER_CONTEXT or `docker context use default`; `docker context ls` lists others."
        return wrong("engine", f"There is no Docker context {docker.context!r}, which {by} names.", cure)
    if docker.socket and docker.socket.exists() and not os.access(docker.socket, os.R_OK | os.W_OK):
        cure = f"`sudo usermod -aG docker $USER`, then log in again. {WITHOUT}"
        return warning("engine", f"You may not open Docker's socket, {docker.socket}.", cure)
    by = "DOCKER_HOST" if os.environ.get("DOCKER_HOST") else f"the context {docker.context!r}"
    cure = f"Start Docker, or set DOCKER_HOST to its address. {WITHOUT}"
    return warning("engine", f"Docker Engine does not answer at {docker.address}, which {by} names.", cure)


def _compose(docker: Docker) -> Finding:
    if not docker.info:
        return unknown("compose", "The docker command did not answer.")
    if not docker.compose:
        return warning("compose", "Docker has no Compose plugin.", f"{INSTALL} {WITHOUT}")
    return ok("compose", f"Compose {docker.compose}.")
