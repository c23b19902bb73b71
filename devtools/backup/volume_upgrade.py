"""Upgrade Compose's volume, if its data are of an older PostgreSQL than the image in `compose.yaml`.

PostgreSQL's images up to 17 keep the data at the volume's root, later ones in N/docker. So the new data are made in the
same volume: its name does not change, and an older checkout still finds the old data.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL

from backend.config import ROOT
from backend.errors import UserError
from backend.scripts.console import say
from devtools.backup.client_programs import Tools, copy_server, docker, docker_says, inside

MARK = "upgraded-from"
"""The file that an upgrade leaves in the new data; it contains the major version of the old data."""
ENDING_SECONDS = 10.0
"""How long to wait for what a killed upgrade left running."""
DOWN = ("down", "--volumes")
QUICKLY = ("--timeout", "10")
"""For containers of an upgrade that failed or was killed: one that initialises its data ignores the signal to stop."""
COMPOSE = ("compose", "--project-directory", str(ROOT))
# Prints a line for the old data, for the new data, and for the mark; it is empty if there are none.
STATE = f'for each in PG_VERSION "$1/PG_VERSION" "$1/{MARK}"; do echo "$(cat "$each" 2>/dev/null)"; done'
FINISH = f'echo "$3" > "$1/{MARK}"; sync; mv -T "$1" "$2"; sync'
# Data are recognised by PG_VERSION. It is deleted last, so that the same command can finish after an interruption.
DROP = 'find . -mindepth 1 -maxdepth 1 ! -name PG_VERSION ! -name "$1" -exec rm -rf {} +; rm PG_VERSION'


class Volume:
    """The volume of Compose's database. Its state is read once, when the object is made."""

    def __init__(self, volume: str, service: Mapping[str, Any], project: str) -> None:
        self.volume, self.service, self.project = volume, service, f"{project}-upgrade"
        self.name = f"Compose's volume {volume}"
        self.image = str(service["image"])
        self.major = int(re.findall(r":(\d+)", self.image)[-1])
        self.new = f"{self.major}/docker"
        old, new, mark = self.script(STATE, self.new).split("\n")[:3]
        self.old, self.has_new, self.is_upgraded = int(old or 0), new != "", mark == old

    def make(self) -> None:
        making = f"{self.new}.making"
        docker(*COMPOSE, "stop")
        self.free_volume()
        self.script('rm -rf "$1"', making)
        user = self.service["environment"]["POSTGRES_USER"]
        url = URL.create("postgresql", user, database="postgres", query={"host": "/var/run/postgresql"})
        with self.servers(making) as (old, new):
            copy_server(old, url, new, url)
        self.script(FINISH, making, self.new, str(self.old))

    def free_volume(self) -> None:
        """Remove a killed upgrade's containers. Raises UserError if others still use the volume.

        A docker command that the upgrade had started may outlive it, and create or keep a container for seconds.
        """
        deadline = time.monotonic() + ENDING_SECONDS
        while True:
            docker("compose", "--project-name", self.project, *DOWN, *QUICKLY)
            users = docker("ps", "--filter", f"volume={self.volume}", "--format", "{{.Names}}").split()
            if not users:
                return
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self.volume} is in use by {', '.join(users)}: stop it first. Nothing was changed."
                )
            time.sleep(0.2)  # polled: `docker wait` knows no container that is created later

    def drop(self) -> None:
        self.script(DROP, self.new.partition("/")[0])

    def script(self, script: str, *words: str) -> str:
        """Run a shell script in the volume's root directory, as root."""
        volume = ("--volume", f"{self.volume}:/volume", "--workdir", "/volume")
        options = ("--rm", "--network", "none", *volume, "--entrypoint", "sh", self.image)
        return docker("run", *options, "-euc", script, "sh", *words)

    @contextmanager
    def servers(self, making: str) -> Iterator[list[Tools]]:
        """Run the old and the new server in containers without a network, and yield their programs."""
        compose = ("compose", "--progress", "quiet", "--project-name", self.project)
        servers = [self.server(self.old, "/volume"), self.server(self.major, f"/volume/{making}")]
        config = {
            "services": {server["container_name"]: server for server in servers},
            "volumes": {"volume": {"external": True, "name": self.volume}},
        }
        try:
            # Given as input, so that the password is in no file and in no list of processes.
            docker(*compose, "--file", "-", "up", "--detach", "--wait", given=json.dumps(config))
            yield [Tools(inside(server["container_name"])) for server in servers]
        except BaseException as error:
            logs = docker_says(*compose, "logs", "--tail", "3")
            docker(*compose, *DOWN, *QUICKLY)
            if not isinstance(error, UserError):
                raise
            raise UserError(
                f"{error}\nThe old data are unchanged. The servers' logs end with:\n{logs}"
            ) from None
        docker(*compose, *DOWN)

    def server(self, major: int, directory: str) -> dict[str, Any]:
        """Return Compose's configuration of the server of this version, with its data in this directory."""
        environment = self.service["environment"]
        is_ready = [
            "CMD",
            "pg_isready",
            "--quiet",
            "--host=127.0.0.1",
            f"--username={environment['POSTGRES_USER']}",
        ]
        return {
            "image": re.sub(r":\d+(?=[^/]*$)", f":{major}", self.image),
            "container_name": f"{self.project}-{major}",
            "command": ["-c", "listen_addresses=127.0.0.1"],
            # The dump creates the databases.
            "environment": {**environment, "PGDATA": directory, "POSTGRES_DB": "postgres"},
            # Over TCP, because the server that initialises the data listens only on its socket.
            "healthcheck": {"test": is_ready, "interval": "0.5s", "retries": 1200},
            "network_mode": "none",
            "stop_signal": "SIGINT",  # a fast shutdown: sessions of a killed upgrade are not waited for
            "stop_grace_period": "10m",
            "volumes": ["volume:/volume"],
        }


def find_volume() -> Volume | None:
    """Return Compose's volume if it has data of an older PostgreSQL, and None otherwise."""
    if docker_says("version") is None:
        say("Docker does not answer, so Compose's volume was not checked.")
        return None
    if (said := docker_says(*COMPOSE, "config", "--format", "json")) is None:
        # Its message may quote a password.
        say("Compose's volume was not checked: `docker compose config --quiet` says why.")
        return None
    config = json.loads(said)
    volume = config["volumes"]["db"]["name"]
    if docker_says("volume", "inspect", volume) is None:
        return None
    service = config["services"]["db"]
    if not re.search(r":\d", service["image"]):
        say(
            f"The image {service['image']} names no version of PostgreSQL, so Compose's volume was not checked."
        )
        return None
    found = Volume(volume, service, config["name"])
    return found if 0 < found.old < found.major else None
