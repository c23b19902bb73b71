"""Compose's volume: data of an older PostgreSQL than the one of `compose.yaml`.

The new data are made in the same volume, so that it keeps its name. A checkout from before finds the old data in place.
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from backend.config import ROOT
from backend.errors import UserError
from backend.scripts.terminal import say

from .console import progress
from .tools import docker, docker_says
from .upgrade_place import DUMP, MARK, RESTORE, Place

LABEL = "procore-integrator.db_upgrade"
COMPOSE = ("compose", "--project-directory", str(ROOT))
# PostgreSQL's images up to 17 keep the data at the volume's root, and since then in N/docker.
LIST = f"""
cd /volume
for each in . */docker; do
    [ -s "$each/PG_VERSION" ] && echo "$each $(cat "$each/PG_VERSION") $(cat "$each/{MARK}" 2>/dev/null || true)"
done
true
"""
PREPARE = 'rm -rf "$1"; mkdir -p "$1/dumps"; chown -R postgres "$1"'
# Nobody else gets in: the server listens on its socket alone, in a container without a network.
DUMP_OLD = """
echo 'local all all trust' > /tmp/hba.conf
options='-c hba_file=/tmp/hba.conf -c listen_addresses= -k /tmp'
pg_ctl -w -s -t 600 -l /tmp/log -o "$options" start || { cat /tmp/log >&2; exit 1; }
sh -c "$DUMP" sh "$1"
pg_ctl -w -s -m fast stop
"""
# As the image does it on its first start.
MAKE_NEW = """
printf %s "$POSTGRES_PASSWORD" > /tmp/password
initdb --username="$POSTGRES_USER" --pwfile=/tmp/password ${POSTGRES_INITDB_ARGS:-} > /dev/null
printf '\\nhost all all all %s\\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"
pg_ctl -w -s -l /tmp/log -o "-c listen_addresses= -k /tmp" start
PGPASSWORD=$POSTGRES_PASSWORD sh -c "$RESTORE" sh "$1"
pg_ctl -w -s -m fast stop
"""
FINISH = f'rm -rf "$1/dumps"; echo "$3" > "$1/data/{MARK}"; sync; mv -T "$1/data" "$2"; sync; rmdir "$1"'
# What data are recognised by goes last, so that the same command finishes what was interrupted.
DROP = (
    'cd "$1"; find . -mindepth 1 -maxdepth 1 ! -name PG_VERSION ! -name "$2" -exec rm -rf {} +; rm PG_VERSION'
)


@dataclass(frozen=True)
class Volume:
    """What Compose says about the volume of its database."""

    name: str
    image: str
    major: int
    path: str
    """Where in it the image keeps its data."""
    variables: Mapping[str, str]
    """The environment of the service."""

    def run(
        self, what: str, script: str, *words: str, image: str = "", variables: Mapping[str, str] | None = None
    ) -> str:
        """Run a script on the volume, as PostgreSQL's account if it gets variables; the container ends with us."""
        name = f"db_upgrade-{secrets.token_hex(4)}"
        options = ["--rm", "--network", "none", "--name", name, "--label", f"{LABEL}={self.name}"]
        options += ["--volume", f"{self.name}:/volume", "--entrypoint", "sh"]
        if variables:
            # By name alone, so that no password is in a list of processes.
            options += ["--user", "postgres", *(word for each in variables for word in ("--env", each))]
        command = [image or self.image, "-euc", script, "sh", *words]
        try:
            with progress(what):
                return docker("run", *options, *command, variables=variables)
        finally:
            docker_says("rm", "--force", "--volumes", name)


def find() -> Place | None:
    """Look at the volume; None if there is no Docker, or no volume yet."""
    volume = read_compose()
    if volume is None:
        return None
    for left in docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={volume.name}").split():
        docker_says("rm", "--force", "--volumes", left)  # of an upgrade that was killed
    lines = volume.run("Looking at the volume", LIST).splitlines()
    found = {path: (int(major), bool(mark)) for path, major, *mark in map(str.split, lines)}
    has_new, is_upgraded = found.pop(volume.path, (0, False))
    old = {major: path for path, (major, _) in found.items() if major < volume.major}
    new = f"/volume/{volume.path}"
    return Place(
        name=f"Compose's volume {volume.name}",
        major=volume.major,
        old=sorted(old),
        has_new=has_new > 0,
        is_upgraded=is_upgraded,
        move_away=f"docker run --rm --volume {volume.name}:/volume {volume.image} mv {new} {new}.away",
        make=lambda major: make(volume, major, f"/volume/{old[major]}"),
        drop=lambda major: drop(volume, f"/volume/{old[major]}"),
    )


def make(volume: Volume, major: int, source: str) -> None:
    stop_users(volume)
    new, making = f"/volume/{volume.path}", f"/volume/{volume.path}.making"
    dumps = f"{making}/dumps"
    user = {"PGHOST": "/tmp", "PGUSER": volume.variables["POSTGRES_USER"]}  # noqa: S108  in the container
    volume.run("Preparing", PREPARE, making)
    old = {**user, "DUMP": DUMP, "PGDATA": source}
    image = re.sub(r":\d+(?=[^/]*$)", f":{major}", volume.image)
    volume.run("Dumping", DUMP_OLD, dumps, image=image, variables=old)
    variables = {**volume.variables, **user, "RESTORE": RESTORE, "PGDATA": f"{making}/data"}
    volume.run("Restoring", MAKE_NEW, dumps, variables=variables)
    volume.run("Finishing", FINISH, making, new, str(major))


def drop(volume: Volume, data: str) -> None:
    volume.run("Dropping the old data", DROP, data, PurePosixPath(volume.path).parts[0])


def read_compose() -> Volume | None:
    """Read what Compose makes of its files; None if there is no Docker, or no volume yet."""
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


def stop_users(volume: Volume) -> None:
    """Stop Compose's services, and refuse if others still use the volume. Raises UserError."""
    users = ("ps", "--filter", f"volume={volume.name}", "--format", "{{.Names}}")
    if docker(*users).strip():
        say("Stopping Compose's services.")
        docker(*COMPOSE, "stop")
    if left := docker(*users).split():
        raise UserError(
            f"{volume.name} is in use by {', '.join(left)}: stop that first. Nothing was changed."
        )
