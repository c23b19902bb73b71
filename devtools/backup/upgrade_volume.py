"""Compose's volume: data of an older PostgreSQL than the one of `compose.yaml`.

The new data are made in the same volume, so that it keeps its name. A checkout from before finds the old data in place.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from backend.config import ROOT
from backend.errors import UserError
from backend.scripts.terminal import say

from . import cluster
from .tools import docker, docker_says

MARK = "upgraded-from"
MAKING = ".making"
COMPOSE = ("compose", "--project-directory", str(ROOT))
# PostgreSQL up to 17 keeps its data at the volume's root, and since then in N/docker. Prints path, version and mark.
LIST = f"""
cd /volume
for each in . */docker; do
    [ -s "$each/PG_VERSION" ] && echo "$each $(cat "$each/PG_VERSION") $(cat "$each/{MARK}" 2>/dev/null || true)"
done
true
"""
RENAME = f"""
cd /volume
echo "$2" > "$1{MAKING}/{MARK}"
sync
mv -T "$1{MAKING}" "$1"
sync
"""
# What data are recognised by goes last, so that the same command finishes what was interrupted.
DROP = """
cd "/volume/$1"
find . -mindepth 1 -maxdepth 1 ! -name PG_VERSION ! -name "$2" -exec rm -rf {} +
rm PG_VERSION
"""


@dataclass(frozen=True)
class Volume:
    """What Compose says about the volume of its database."""

    name: str
    image: str
    major: int
    target: str
    """Where it is mounted."""
    path: str
    """Where in it the image keeps its data."""
    variables: Mapping[str, str]
    """The environment of the service."""

    def run(self, script: str, *arguments: str) -> str:
        place = ("--volume", f"{self.name}:/volume", "--entrypoint", "sh", self.image)
        return docker("run", "--rm", "--network", "none", *place, "-euc", script, "sh", *arguments)


def upgrade(*, drop_old: bool) -> bool:
    """Upgrade the volume, or drop its old data; return whether there was something to do or to say."""
    volume = read_compose()
    if volume is None:
        return False
    cluster.remove_leftovers(volume.name)
    found = {
        path: (int(major), "".join(mark))
        for path, major, *mark in map(str.split, volume.run(LIST).splitlines())
    }
    current = found.pop(volume.path, None)
    old = {major: path for path, (major, _) in found.items() if major < volume.major}
    place = f"Compose's volume {volume.name}"
    if not old:
        return False
    source = max(old)
    is_upgraded = current is not None and bool(current[1])
    if drop_old and not is_upgraded:
        raise UserError(f"{place} was not upgraded yet: run `nox -s db_upgrade` first. Nothing was dropped.")
    if drop_old:
        for major, path in old.items():
            volume.run(DROP, path, PurePosixPath(volume.path).parts[0])
            say(f"{place}: dropped the data of PostgreSQL {major}.")
    elif is_upgraded:
        say(
            f"{place} is upgraded already. `nox -s db_upgrade -- --drop-old` drops the data of PostgreSQL {source}."
        )
    elif current is not None:
        raise UserError(
            f"{place} holds data of PostgreSQL {source}, and newer data of {volume.major} that were not made from them. "
            f"Nothing was changed.\nIf you do not need the newer ones, move them away and try again: `docker run --rm "
            f"--volume {volume.name}:/volume {volume.image} mv /volume/{volume.path} /volume/{volume.path}.away`."
        )
    else:
        stop_users(volume)
        say(f"{place}: from PostgreSQL {source} to {volume.major}.")
        make(volume, old[source], source)
        say(
            f"{place} is upgraded: `docker compose up` serves it. The old data are kept in it; "
            "`nox -s db_upgrade -- --drop-old` drops them."
        )
    return True


def make(volume: Volume, source: str, major: int) -> None:
    """Make the new data from the old. The last rename is what makes them count."""
    volume.run('rm -rf "/volume/$1"', f"{volume.path}{MAKING}")
    image = re.sub(r":\d+(?=[^/]*$)", f":{major}", volume.image)
    user = volume.variables["POSTGRES_USER"]
    data = f"{volume.target}/{volume.path}{MAKING}"
    mount = f"{volume.name}:{volume.target}"
    with (
        cluster.old_server(image, volume.name, source, user, of=volume.name) as old,
        cluster.new_server(volume.image, mount, data, volume.variables, of=volume.name) as new,
    ):
        cluster.copy(old, new)
    volume.run(RENAME, volume.path, str(major))


def read_compose() -> Volume | None:
    """Read what Compose makes of its files; None if there is no Docker, or no volume yet."""
    said = docker_says(*COMPOSE, "config", "--format", "json")
    if said is None:
        return None
    config = json.loads(said.replace("$$", "$"))  # written for Compose to read again
    service = config["services"]["db"]
    [mount] = [each for each in service["volumes"] if each["type"] == "volume"]
    name = config["volumes"][mount["source"]]["name"]
    if docker_says("volume", "inspect", name) is None:
        return None
    if docker_says("image", "inspect", service["image"]) is None:
        docker("pull", service["image"])
    [image] = json.loads(docker("image", "inspect", service["image"]))
    variables = dict(word.split("=", 1) for word in image["Config"]["Env"])
    path = PurePosixPath(variables["PGDATA"]).relative_to(mount["target"])
    return Volume(
        name, service["image"], int(variables["PG_MAJOR"]), mount["target"], str(path), service["environment"]
    )


def stop_users(volume: Volume) -> None:
    """Stop Compose's services, and refuse if others still use the volume."""
    users = ("ps", "--filter", f"volume={volume.name}", "--format", "{{.Names}}")
    if docker(*users).strip():
        say("Stopping Compose's services.")
        docker(*COMPOSE, "stop")
    if left := docker(*users).split():
        raise UserError(
            f"{volume.name} is in use by {', '.join(left)}. Stop that first. Nothing was changed."
        )
