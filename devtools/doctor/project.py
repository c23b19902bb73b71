"""What Compose has of this checkout: its services, its volume, and the password that the volume knows."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from devtools.doctor.command import NotThereError
from devtools.doctor.finding import Finding, ok, unknown, warning, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devtools.doctor.checkout import Checkout
    from devtools.doctor.engine import Docker

NAMES = ("compose/files", "compose/project", "compose/services", "compose/password", "compose/volume")
DATABASE = "db"
DELETES = "`docker compose down -v` makes a new volume, and deletes its data"
_WORKING_DIRECTORY = '{{.Label "com.docker.compose.project.working_dir"}}'
_SECONDS = 15
_LATE = f"Compose did not answer within {_SECONDS} s."
# Over the container's own address, for from its loopback no password is asked.
_LOG_IN = (
    'exec psql --no-psqlrc -qAt --host "$(hostname -i | cut -d " " -f 1)" --dbname postgres -c "SELECT 1"'
)
# Where the data lie in the volume, but not what is in each database.
_FIND = (".", "-maxdepth", "4", "-name", "PG_VERSION", "-not", "-path", "*/base/*")


@dataclass(frozen=True)
class Project:
    """Compose's files as Compose reads them; `refusal` says why it does not, if that is the files' fault."""

    model: dict[str, Any]
    refusal: str = ""
    is_unknown: bool = False

    @property
    def name(self) -> str:
        return str(self.model.get("name", ""))

    @property
    def database(self) -> dict[str, Any]:
        found: dict[str, Any] = self.model.get("services", {}).get(DATABASE, {})
        return found

    def setting(self, name: str) -> str:
        """Return a variable of the database's service. What Compose prints has each `$` twice."""
        return str((self.database.get("environment") or {}).get(name) or "").replace("$$", "$")

    @property
    def volume(self) -> str:
        return str(self.model.get("volumes", {}).get(DATABASE, {}).get("name", ""))


def read(checkout: Checkout, docker: Docker) -> Project:
    if not docker.compose:
        return Project({}, "There is no Compose to ask.", is_unknown=True)
    try:
        said = checkout.run("docker", "compose", "config", "--format", "json", seconds=_SECONDS)
        if said.is_late:
            return Project({}, _LATE, is_unknown=True)
        if said.code == 0:
            return Project(json.loads(said.out))
    except (NotThereError, ValueError):
        pass
    # What Compose says of it quotes lines, which may hold a password.
    return Project({}, "Compose cannot read compose.yaml and .env.")


def check(checkout: Checkout, ask: Callable[[], Docker], ask_project: Callable[[], Project]) -> list[Finding]:
    docker, project = ask(), ask_project()
    if project.is_unknown:
        is_elsewhere = checkout.is_workspace and not docker.compose
        refusal = "Look from the host, where Compose is." if is_elsewhere else project.refusal
        return [unknown(name, refusal) for name in NAMES]
    if project.refusal:
        found = wrong(NAMES[0], project.refusal, "`docker compose config --quiet` says where.")
        return [found, *(unknown(name, project.refusal) for name in NAMES[1:])]
    files = ok(NAMES[0], f"Compose reads them as the project {project.name}.")
    if not docker.answers:
        return [files, *(unknown(name, "Docker's engine does not answer.") for name in NAMES[1:])]
    said = checkout.run("docker", "compose", "ps", "--all", "--format", "json", seconds=_SECONDS)
    if said.code != 0:
        refusal = _LATE if said.is_late else "Compose does not tell of its containers."
        return [files, *(unknown(name, refusal) for name in NAMES[1:])]
    services = list(_containers(said.out))
    running = next(
        (each["ID"] for each in services if each["Service"] == DATABASE and each["State"] == "running"), ""
    )
    return [
        files,
        _others(checkout, project),
        *_services(services),
        _password(checkout, project, running),
        _volume(checkout, project),
    ]


def _containers(told: str) -> Iterator[dict[str, Any]]:
    # One to a line, and before Compose 2.21 all in one list.
    for line in told.splitlines():
        data = json.loads(line)
        yield from data if isinstance(data, list) else [data]


def _others(checkout: Checkout, project: Project) -> Finding:
    """Find another checkout whose containers bear this project's name: the two would take each other's away."""
    mine = f"label=com.docker.compose.project={project.name}"
    said = checkout.run("docker", "ps", "--all", "--filter", mine, "--format", _WORKING_DIRECTORY)
    if said.code != 0:
        return unknown("compose/project", "Docker does not tell of its containers.")
    others = sorted({place for place in said.out.splitlines() if place and not checkout.is_at(place)})
    if others:
        return wrong(
            "compose/project",
            f"The containers of the project {project.name} are those of another checkout, {others[0]}.",
            "Set COMPOSE_PROJECT_NAME, API_PORT and DB_PORT in .env to keep the two apart.",
        )
    return ok("compose/project", f"Nobody else has containers of the name {project.name}.")


def _services(services: list[dict[str, Any]]) -> Iterator[Finding]:
    name = "compose/services"
    if not services:
        yield ok(name, "None is up; `docker compose up` starts them.")
    for each in sorted(services, key=lambda each: str(each["Service"])):
        service, state = each["Service"], each["State"]
        health, code = each.get("Health"), each.get("ExitCode")
        cure = f"`docker compose logs {service}` says why."
        if state in ("restarting", "dead") or (state == "exited" and code not in (0, 130, 143)):
            yield wrong(name, f"{service} is {state}, with exit code {code}.", cure)
        elif health == "unhealthy":
            yield wrong(name, f"{service} runs and is unhealthy.", cure)
        elif state == "paused":
            yield warning(name, f"{service} is paused.", f"`docker compose unpause {service}`.")
        else:
            yield ok(name, f"{service} is {state}{f', {health}' if health else ''}.")


def _password(checkout: Checkout, project: Project, container: str) -> Finding:
    name, user = "compose/password", project.setting("POSTGRES_USER")
    if not container:
        return unknown(name, "Compose's database is not up to be asked.")
    variables = {"PGUSER": user, "PGPASSWORD": project.setting("POSTGRES_PASSWORD"), "PGCONNECT_TIMEOUT": "3"}
    # By name alone: the values travel in the environment, where no list of processes shows them.
    passed = [word for each in variables for word in ("--env", each)]
    execute = ("docker", "exec", "--user", "postgres", *passed, container, "sh", "-c")
    said = checkout.run(*execute, _LOG_IN, seconds=8, **variables)
    if said.code == 0:
        return ok(name, f"The volume knows user {user!r} and the password that Compose gives.")
    if "authentication failed" not in said.error:
        return unknown(
            name, "Compose's database takes no connection.", f"`docker compose logs {DATABASE}` says why."
        )
    # By the socket, where no password is asked.
    known = checkout.run(
        *execute, 'exec psql --no-psqlrc -qAt --dbname postgres -c "SELECT 1"', seconds=8, **variables
    )
    if known.code == 0:
        return wrong(
            name,
            f"The volume does not know the POSTGRES_PASSWORD that Compose gives for user {user!r}: it keeps the one "
            "that it was made with.",
            "Set that one, or teach it the new one: "
            f"`docker compose exec {DATABASE} psql -U {quote(user)} -d postgres -c '\\password'`. {DELETES}.",
        )
    return wrong(
        name,
        f"The volume does not know user {user!r}: it keeps the POSTGRES_USER that it was made with.",
        f"Set that one. {DELETES}.",
    )


def _volume(checkout: Checkout, project: Project) -> Finding:
    name, volume, image = "compose/volume", project.volume, str(project.database.get("image", ""))
    looked_for = checkout.run("docker", "volume", "inspect", volume)
    if looked_for.code != 0:
        is_none = "no such volume" in looked_for.error.lower()
        none = ok(name, f"There is no volume {volume} yet; the first start makes it.")
        return none if is_none else unknown(name, "Docker does not tell of the database's volume.")
    inspected = checkout.run("docker", "image", "inspect", "--format", "{{json .Config.Env}}", image)
    if inspected.code != 0:
        return unknown(
            name,
            f"The image {image} is not here yet, by which {volume} is read.",
            "`docker compose pull db`.",
        )
    variables = dict(entry.split("=", 1) for entry in json.loads(inspected.out) if "=" in entry)
    held = _versions_in(checkout, volume, image)
    if held is None:
        return unknown(name, f"The volume {volume} cannot be read.")
    major = variables.get("PG_MAJOR", "")
    mounts = project.database.get("volumes", [])
    target = next((each["target"] for each in mounts if each.get("source") == DATABASE), "")
    if not held:
        return ok(name, f"{volume} is empty; the next start makes a database in it.")
    if held.get(os.path.relpath(variables.get("PGDATA", target), target)) == major:
        return ok(name, f"{volume} holds data of PostgreSQL {major}, which {image} runs.")
    is_older = all(version.isdecimal() and int(version) < int(major) for version in held.values())
    cure = f"To keep the data, dump them by an image of their version. {DELETES}."
    return wrong(
        name,
        f"{volume} holds data of PostgreSQL {' and '.join(sorted(set(held.values())))}, and {image} runs {major}.",
        "`nox -s db_upgrade` brings them along." if is_older else cure,
    )


def _versions_in(checkout: Checkout, volume: str, image: str) -> dict[str, str] | None:
    """Return the version of the data in each folder of a volume that holds any; None where it cannot be read."""
    command = ["docker", "run", "--rm", "--pull=never", "--network=none", "--read-only", "--user=0:0"]
    command += ["--mount", f"type=volume,source={volume},target=/volume,readonly,volume-nocopy"]
    command += [
        "--workdir=/volume",
        "--entrypoint=find",
        image,
        *_FIND,
        "-exec",
        "grep",
        "-H",
        ".",
        "{}",
        ";",
    ]
    said = checkout.run(*command, seconds=15)
    if said.code != 0:
        return None
    found = (line.rpartition(":") for line in said.out.splitlines())
    return {os.path.relpath(os.path.dirname(path)): version for path, _, version in found}  # noqa: PTH120  of a container
