"""Upgrade Compose's volume, if its data are of an older PostgreSQL than the image in `compose.yaml`.

The new data are made in the same volume, so that its name does not change and an older checkout still finds the old
data.
"""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from sqlalchemy import URL

from backend.config import ROOT
from backend.errors import UserError
from backend.scripts.terminal import say

from .client_programs import ToolError, Tools, copy_server, docker, docker_says, progress

MARK = "upgraded-from"
"""The file that an upgrade leaves in the new data."""
COMPOSE = ("compose", "--project-directory", str(ROOT))
# PostgreSQL's images up to 17 keep the data at the volume's root, later ones in N/docker.
LIST = f"""
cd /volume
for each in . */docker; do
    [ -s "$each/PG_VERSION" ] && echo "$each $(cat "$each/PG_VERSION") $(cat "$each/{MARK}" 2>/dev/null || true)"
done
true
"""
FINISH = f'echo "$3" > "$1/{MARK}"; chown postgres "$1/{MARK}"; sync; mv -T "$1" "$2"; sync'
# Data are recognised by PG_VERSION. It is deleted last, so that the same command can finish after an interruption.
DROP = (
    'cd "$1"; find . -mindepth 1 -maxdepth 1 ! -name PG_VERSION ! -name "$2" -exec rm -rf {} +; rm PG_VERSION'
)


@dataclass
class Volume:
    """The volume of Compose's database, with its configuration in Compose."""

    volume: str
    image: str
    major: int
    path: str
    """Where in it the image keeps its data."""
    variables: Mapping[str, str]
    """The environment of the service."""

    def __post_init__(self) -> None:
        self.name = f"Compose's volume {self.volume}"
        lines = self.run(LIST).splitlines()
        found = {path: (int(major), bool(mark)) for path, major, *mark in map(str.split, lines)}
        has_new, self.is_upgraded = found.pop(self.path, (0, False))
        self.has_new = has_new > 0
        self.old = {major: f"/volume/{path}" for path, (major, _) in found.items() if major < self.major}
        self.new = f"/volume/{self.path}"
        self.move_away = (
            f"docker run --rm --volume {self.volume}:/volume {self.image} mv {self.new} {self.new}.away"
        )

    def make(self, major: int) -> None:
        """Make the new data from those of this version."""
        for each in (major, self.major):
            # Remove the remains of an upgrade that was killed.
            docker_says("rm", "--force", "--volumes", f"{self.volume}-upgrade-{each}")
        self.stop_users()
        making = f"{self.new}.making"
        self.run('rm -rf "$1"', making)
        with self.server(major, self.old[major]) as old, self.server(self.major, making) as new:
            copy_server(old, self.url, new, self.url)
        self.run(FINISH, making, self.new, str(major))

    def drop(self, major: int) -> None:
        with progress("Dropping the old data"):
            self.run(DROP, self.old[major], PurePosixPath(self.path).parts[0])

    @property
    def url(self) -> URL:
        """The server's URL as seen from inside its container."""
        user, password = (self.variables[f"POSTGRES_{word}"] for word in ("USER", "PASSWORD"))
        socket = {"host": "/var/run/postgresql"}
        return URL.create("postgresql", user, password, database="postgres", query=socket)

    def run(self, script: str, *words: str) -> str:
        """Run a script on the volume, as root."""
        mount = ("--volume", f"{self.volume}:/volume", "--entrypoint", "sh", self.image)
        return docker("run", "--rm", "--network", "none", *mount, "-euc", script, "sh", *words)

    @contextmanager
    def server(self, major: int, data: str) -> Iterator[Tools]:
        """Run a server of a version in a container without a network, and give its programs. Raises ToolError."""
        name = f"{self.volume}-upgrade-{major}"
        image = re.sub(r":\d+(?=[^/]*$)", f":{major}", self.image)
        # Variables are passed by name, so that no password is in a list of processes. The dump creates the databases.
        variables = {**self.variables, "PGDATA": data, "POSTGRES_DB": "postgres"}
        options = [word for variable in variables for word in ("--env", variable)]
        options += ["--network", "none", "--name", name, "--volume", f"{self.volume}:/volume", image]
        try:
            with progress(f"Starting PostgreSQL {major}"):
                docker("run", "--detach", *options, "-c", "listen_addresses=127.0.0.1", variables=variables)
                # Over TCP, because the server that initialises the data listens only on its socket.
                while docker_says("exec", name, "pg_isready", "--quiet", "--host=127.0.0.1") is None:
                    if docker("inspect", "--format", "{{.State.Running}}", name).strip() != "true":
                        logs = subprocess.run(
                            ["docker", "logs", name], capture_output=True, text=True, check=False
                        )
                        raise ToolError(f"PostgreSQL {major} did not start:\n{logs.stderr[-1000:].strip()}")
                    time.sleep(0.3)
            yield Tools(
                lambda program: ["docker", "exec", "--interactive", "--env", "PGPASSWORD", name, program]
            )
            docker("stop", "--time", "600", name)
        finally:
            docker_says("rm", "--force", "--volumes", name)

    def stop_users(self) -> None:
        """Stop Compose's services, and refuse if others still use the volume. Raises UserError."""
        users = ("ps", "--filter", f"volume={self.volume}", "--format", "{{.Names}}")
        if docker(*users).strip():
            say("Stopping Compose's services.")
            docker(*COMPOSE, "stop")
        if left := docker(*users).split():
            raise UserError(
                f"{self.volume} is in use by {', '.join(left)}: stop it first. Nothing was changed."
            )


def find_volume() -> Volume | None:
    """Return Compose's volume, None if there is no Docker or no volume yet."""
    said = docker_says(*COMPOSE, "config", "--format", "json")
    if said is None:
        return None
    config = json.loads(said.replace("$$", "$"))  # written for Compose to read again
    service = config["services"]["db"]
    [mount] = [each for each in service["volumes"] if each["type"] == "volume"]
    name, image = config["volumes"][mount["source"]]["name"], service["image"]
    if docker_says("volume", "inspect", name) is None:
        return None
    if docker_says("image", "inspect", image) is None:
        docker("pull", image)
    [details] = json.loads(docker("image", "inspect", image))
    defaults = dict(word.split("=", 1) for word in details["Config"]["Env"])
    path = PurePosixPath(defaults["PGDATA"]).relative_to(mount["target"])
    variables = {variable: value for variable, value in service["environment"].items() if value is not None}
    return Volume(name, image, int(defaults["PG_MAJOR"]), str(path), variables)
