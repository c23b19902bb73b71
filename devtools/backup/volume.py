"""Compose's volume: the data in it are of an older PostgreSQL than the one that `compose.yaml` names now.

The new server's data are made in the same volume beside the old, under a name that no server looks at, and get the
name that the image looks for by one rename. The old data are mounted read-only meanwhile, and stay where they are until
they are told to go. So the volume keeps its name and `docker compose up` needs nothing new; and a checkout of the time
before finds its data as it left them.
"""

import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from backend.config import ROOT
from backend.errors import UserError
from backend.scripts.terminal import say

from . import docker
from .carry import carry
from .containers import labels, new_server, old_server, remove_leftovers, stop_cleanly

MARK = "upgraded-from"
_MAKING, _ASIDE = ".making-", ".aside-"
# Every directory of data in the volume: its place, its major version, and what it was upgraded from.
_LIST = f"""
cd /data && find . -maxdepth 5 -path '*/global/pg_control' | while read -r found; do
    place=${{found%/global/pg_control}}
    echo "$place|$(cat "$place/PG_VERSION")|$(cat "$place/{MARK}" 2>/dev/null)"
done
"""


@dataclass(frozen=True)
class Data:
    """The data of one server: where in the volume, of which major version, and what they were made from, if we did."""

    path: str
    major: int
    made_from: str


@dataclass(frozen=True)
class Compose:
    """What `compose.yaml` and `.env` say of the database's service."""

    image: str
    major: int
    volume: str
    target: str
    """Where the volume is mounted."""
    path: str
    """Where in the volume the image looks for its data."""
    environment: Mapping[str, str]

    def image_of(self, major: int) -> str:
        return re.sub(r":\d+(?=[^/]*$)", f":{major}", self.image)

    def script(self, words: str, *arguments: str) -> str:
        """Run a script of the shell on the volume, which lies in /data."""
        # With the label: what a killed run has left at work must not meet what the next one does.
        place = (*labels(self.volume), "--volume", f"{self.volume}:/data", "--entrypoint", "sh", self.image)
        isolated = ("--rm", "--network", "none", "--user", "root")
        return docker.run("run", *isolated, *place, "-euc", words, "sh", *arguments)


def upgrade(*, drop_old: bool, anew: bool) -> bool:
    """Upgrade the volume's data if they are old; return whether there was anything to do or to say."""
    compose = read_compose()
    if compose is None:
        return False
    remove_leftovers(compose.volume)
    found = list_data(compose)
    current = next((data for data in found if data.path == compose.path), None)
    old = [data for data in found if data.major < compose.major and _ASIDE not in data.path]
    place = f"Compose's volume {compose.volume}"
    if drop_old:
        return drop(compose, place, current, [data for data in found if data is not current])
    if not old:
        return False
    source = max(old, key=lambda data: data.major)
    if current is not None and current.made_from:
        say(
            f"{place}: PostgreSQL {compose.major} already, made from {current.made_from}'s data, which are kept."
        )
        return True
    if current is not None and not anew:
        raise UserError(
            f"{place} holds data of PostgreSQL {source.major} and others of {compose.major}, which were not made from "
            f"them and are the ones in use. Nothing was changed.\nIf {compose.major}'s hold nothing that you need, as "
            f"after a first start: `nox -s db_upgrade -- --anew` sets them aside, and brings {source.major}'s along."
        )
    stop_users(compose)
    say(f"{place}: from PostgreSQL {source.major} to {compose.major}.")
    bring_along(compose, source, set_aside=current is not None)
    say(
        f"{place}: PostgreSQL {compose.major}; `docker compose up` serves it. The data of {source.major} are kept "
        "there too: `nox -s db_upgrade -- --drop-old` drops them."
    )
    return True


def bring_along(compose: Compose, source: Data, *, set_aside: bool) -> None:
    """Make the new data from the old ones. They are there when the last of their names is changed, and not before."""
    top = PurePosixPath(compose.path).parts[0]
    compose.script(f'rm -rf "/data/$1"{_MAKING}*', compose.path)
    making = f"{compose.path}{_MAKING}{secrets.token_hex(4)}"
    name, image = compose.volume, compose.image_of(source.major)
    try:
        with (
            old_server(image, name, source.path, beside=top, of=name) as old,
            new_server(compose.image, name, compose.target, making, compose.environment, of=name) as (
                new,
                container,
            ),
        ):
            carry(old, new)
            stop_cleanly(container)
        words = "\n".join(
            [
                f'printf "%s" "$1" > "/data/$2/{MARK}"',
                # The new server's account may be another, and has to get by the old one's data.
                '[ "$(stat -c %u /data)" = "$(stat -c %u "/data/$2")" ] || chmod a+x /data',
                "sync",
                *([f'mv -T "/data/$3" "/data/$3{_ASIDE}$(date -u +%Y%m%dT%H%M%SZ)"'] if set_aside else []),
                'mv -T "/data/$2" "/data/$3"',
                "sync",
            ]
        )
        compose.script(words, str(source.major), making, compose.path)
    except BaseException:
        remove_leftovers(compose.volume)
        with suppress(UserError):
            compose.script('rm -rf "/data/$1"', making)
        raise


def drop(compose: Compose, place: str, current: Data | None, others: list[Data]) -> bool:
    """Drop what is not in use, once what is in use was made from it."""
    if not others:
        return False
    if current is None or not current.made_from:
        raise UserError(
            f"{place}: the data of PostgreSQL {max(data.major for data in others)} are kept, for those of "
            f"{compose.major} were not made from them. Nothing was dropped.\nRun `nox -s db_upgrade` first."
        )
    top = PurePosixPath(compose.path).parts[0]
    for data in sorted(others, key=lambda data: data.path != "."):
        # What they are known by goes last, so that the next run finds what an interrupted one left.
        compose.script(
            'cd "/data/$1"; find . -mindepth 1 -maxdepth 1 ! -name "$2" ! -name global ! -name PG_VERSION '
            '-exec rm -rf {} +; rm -rf global PG_VERSION; cd /data; [ "$1" = . ] || rmdir -p "$1" 2>/dev/null || true',
            data.path,
            top if data.path == "." else "",
        )
        say(f"{place}: dropped the data of PostgreSQL {data.major} ({data.path}).")
    return True


def read_compose() -> Compose | None:
    """Read what Compose makes of its files; None where there is no Docker, no such service, or no volume of it yet."""
    said = docker.ask("compose", "--project-directory", str(ROOT), "config", "--format", "json")
    if said is None:
        return None
    # It is printed to be read by Compose again, for which a dollar is two.
    whole = json.loads(said.replace("$$", "$"))
    service = whole["services"].get("db")
    mounts = [each for each in (service or {}).get("volumes", []) if each["type"] == "volume"]
    if service is None or not mounts:
        return None
    volume = whole["volumes"][mounts[0]["source"]]["name"]
    if docker.ask("volume", "inspect", volume) is None:
        return None
    docker.pull(service["image"])
    [image] = json.loads(docker.run("image", "inspect", service["image"]))
    environment = {
        **dict(word.split("=", 1) for word in image["Config"]["Env"]),
        **(service.get("environment") or {}),
    }
    target = PurePosixPath(mounts[0]["target"])
    return Compose(
        image=service["image"],
        major=int(environment["PG_MAJOR"]),
        volume=volume,
        target=str(target),
        path=str(PurePosixPath(environment["PGDATA"]).relative_to(target)),
        environment={name: value for name, value in service["environment"].items() if value is not None},
    )


def list_data(compose: Compose) -> list[Data]:
    lines = (line.split("|") for line in compose.script(_LIST).splitlines())
    return [
        Data(str(PurePosixPath(path)), int(major), made_from)
        for path, major, made_from in lines
        if _MAKING not in path and major.isdecimal()
    ]


def stop_users(compose: Compose) -> None:
    """Have nobody write to the old data: stop Compose's own services, and refuse where others use the volume."""
    filters = ("--filter", f"volume={compose.volume}", "--format", "{{.Names}}")
    if (docker.ask("ps", *filters) or "").strip():
        say("Stopping Compose's services, as its database is to be upgraded.")
        docker.run("compose", "--project-directory", str(ROOT), "stop")
    left = (docker.ask("ps", *filters) or "").split()
    if left:
        raise UserError(
            f"The volume {compose.volume} is in use by {', '.join(left)}. Nothing was changed.\n"
            "Stop that, and try again."
        )
