"""Check Compose: the project name, the services, and the version of the volume's data."""

import json
from collections.abc import Iterator
from typing import Any

from devtools.doctor.docker_cli import Machine
from devtools.doctor.finding import Finding, ok, unknown, where, wrong

_DIRECTORY = '{{.Label "com.docker.compose.project.working_dir"}}'
# Prints the version of the image, then the version of each data directory in the volume.
_VERSIONS = "echo $PG_MAJOR; find /volume -maxdepth 4 -name PG_VERSION ! -path '*/base/*' -exec cat {} +"


def check(machine: Machine) -> Iterator[Finding]:
    if not (machine.docker.compose or machine.project):
        yield unknown("files", "Compose is not available.")
        return
    yield _files(machine)
    if not machine.project:
        return
    listed = machine.run("docker", "compose", "ps", "--all", "--format", "json")
    if listed.returncode != 0:
        yield unknown("services", "Docker Engine does not answer.")
        return
    yield _other_checkouts(machine)
    services = [json.loads(line) for line in listed.stdout.splitlines()]
    yield from map(_service, sorted(services, key=lambda each: str(each["Service"])))
    if not services:
        yield ok("services", "None is running; `docker compose up` starts them.")
    yield _volume(machine)


def _files(machine: Machine) -> Finding:
    if machine.project:
        return ok("files", f"Compose reads compose.yaml as the project {machine.project['name']}.")
    # If Compose accepts the files under another project name, then only the name is wrong.
    if machine.run("docker", "compose", "--project-name", "doctor", "config", "--quiet").returncode == 0:
        finding = "Compose cannot derive a project name from this directory's name or COMPOSE_PROJECT_NAME."
        place = where("COMPOSE_PROJECT_NAME")
        cure = f"Set COMPOSE_PROJECT_NAME='procore' in {place}, a name of lowercase letters, digits, - and _."
        return wrong("files", finding, cure)
    # Compose's message is not shown: it quotes lines that may contain a password.
    cure = "`docker compose config --quiet` says where."
    return wrong("files", "Compose cannot read compose.yaml with .env and the environment.", cure)


def _other_checkouts(machine: Machine) -> Finding:
    project = machine.project["name"]
    label = f"label=com.docker.compose.project={project}"
    listed = machine.run("docker", "ps", "--all", "--filter", label, "--format", _DIRECTORY)
    others = sorted(place for place in listed.stdout.splitlines() if place and not machine.is_here(place))
    if others:
        finding = f"Another checkout, {others[0]}, has containers with the same project name, {project}."
        cure = (
            "Set COMPOSE_PROJECT_NAME, API_PORT and DB_PORT in .env or the environment to keep the two apart."
        )
        return wrong("project", finding, cure)
    return ok("project", f"No other checkout has containers of the project {project}.")


def _service(found: dict[str, Any]) -> Finding:
    service, state, health, code = found["Service"], found["State"], found.get("Health"), found["ExitCode"]
    has_failed = state in ("restarting", "dead") or (state == "exited" and code not in (0, 130, 143))
    details = health or (f"exit code {code}" if has_failed else "")
    finding = f"{service} is {state}{details and f', {details}'}."
    if has_failed or health == "unhealthy":
        return wrong("services", finding, f"`docker compose logs {service}` says why.")
    return ok("services", finding)


def _volume(machine: Machine) -> Finding:
    volume, image = machine.project["volumes"]["db"]["name"], machine.project["services"]["db"]["image"]
    if machine.run("docker", "volume", "inspect", volume).returncode != 0:
        return ok("volume", f"There is no volume {volume} yet; the first start creates it.")
    said = machine.run(
        *("docker", "run", "--rm", "--pull=never", "--network=none", "--read-only", "--user=0:0"),
        *(f"--mount=type=volume,source={volume},target=/volume,readonly,volume-nocopy", "--entrypoint=sh"),
        *(image, "-c", _VERSIONS),
    )
    if said.returncode != 0:
        return unknown("volume", f"The image {image} cannot read {volume}.", "`docker compose pull db`.")
    major, *held = said.stdout.split()
    if not held:
        return ok("volume", f"{volume} is empty; the next start creates a database in it.")
    if major in held:
        return ok("volume", f"{volume} has data of PostgreSQL {major}, the version of {image}.")
    finding = f"{volume} has data of PostgreSQL {' and '.join(sorted(held))}; {image} runs {major}."
    by_hand = "Dump them with an image of their version; `docker compose down -v` deletes them."
    is_older = float(held[0]) < int(major)
    return wrong("volume", finding, "`nox -s db_upgrade` moves them." if is_older else by_hand)
