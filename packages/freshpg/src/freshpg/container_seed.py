"""Images in which a server's data are initialised already, each made once from one that works as the public one does.

A container of the image is started as anybody would, with its data where no volume is, shut down when it answers, and
committed. What the image's own entry point and its `/docker-entrypoint-initdb.d` do is in it, so, and none of it is
done again: a container of the seed copies the data into memory and runs `postgres`.

A seed with a project's template database in it is made of such an image in the same way, by what prepares the template.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from docker.errors import DockerException, ImageNotFound  # type: ignore[import-untyped] # it has no types
from testcontainers.core.labels import LABEL_SESSION_ID

from .keeper.archive import VERIFIER
from .reaper import OWNER_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import DockerClient  # type: ignore[import-untyped] # it has no types

    from .container_start import Started

REPOSITORY = "postgres-for-tests"
FORMAT = 1
DATA = "/pgseed/data"
"""In the container's own layer: what lies in a volume, where images have their data, is not committed."""
SEED_LABEL = "postgres-for-tests.seed"
BASE_LABEL = "postgres-for-tests.base"
TEMPLATE_LABEL = "postgres-for-tests.template"
KEPT_OF_A_BASE = 2
KEPT_TEMPLATES_OF_A_BASE = 5
KEPT_DAYS = 14
NAMELESS_SECONDS = 60
_STOP_SECONDS = 20
_CHECKSUMS_SINCE = 18

_ENVIRONMENT = "SEED_"

# In place, one byte at a time, because dd counts in blocks: it is a hundred of them.
# Where the data are to become a seed they stay where they are.
_ENTRY = """
{ [ "$SEED_DATA" = "$PGDATA" ] || cp -a "$SEED_DATA" "$PGDATA"; } &&
printf %s "$SEED_SECRET" | dd of="$PGDATA/$SEED_FILE" bs=1 seek="$SEED_OFFSET" conv=notrunc 2>/dev/null &&
exec "$@"
"""
ENTRY_POINT = ["sh", "-c", _ENTRY, "sh"]


class NoSeed(Exception):  # noqa: N818 (it says what is so)
    """A container's data cannot be made a seed; the message says why, in the middle of a sentence."""


@dataclass(frozen=True)
class ContainerSeed:
    """An image with data in it: its name, as whom they are served, and where the superuser's verifier is in them."""

    name: str
    uid: int
    gid: int
    file: str
    offset: int
    iterations_width: int
    template: str | None = None
    """The digest of what made the template database in it; None where there is none."""

    def environment(self, secret: str) -> dict[str, str]:
        """Return what the entry point reads, with what follows a verifier's count of iterations."""
        # The count keeps its width: the server reads 0001 as 1.
        verifier = f"SCRAM-SHA-256${'1'.rjust(self.iterations_width, '0')}:{secret}"
        told = {"DATA": DATA, "SECRET": verifier, "FILE": self.file, "OFFSET": str(self.offset)}
        return {f"{_ENVIRONMENT}{name}": value for name, value in told.items()}


def initdb_arguments(environment: dict[str, str]) -> str:
    """Return initdb's arguments for an image: without checksums, under which a password cannot be replaced."""
    major = environment.get("PG_MAJOR", "")
    checksums = major.isdecimal() and int(major) >= _CHECKSUMS_SINCE
    return "--no-sync --encoding=UTF8" + (" --no-data-checksums" if checksums else "")


def find_seed(client: DockerClient, image: str, template: str | None = None) -> ContainerSeed | None:
    """Return the seed of this very image with the template of this digest in it, else its bare one.

    None where there is neither, as with a newer image of the same name. Raises DockerException.
    """
    bare = f"{REPOSITORY}:{_key(client.images.get(image).attrs)}"
    wanted: list[tuple[str, str | None]] = [(bare, None)]
    if template is not None:
        wanted.insert(0, (_with_template(bare, template), template))
    for name, inside in wanted:
        with suppress(ImageNotFound, KeyError, ValueError, TypeError):
            labels: dict[str, str] = client.images.get(name).labels
            return ContainerSeed(name, **json.loads(labels[SEED_LABEL]), template=inside)
    return None


def make_seed(client: DockerClient, image: str, start: Callable[[str], Started]) -> ContainerSeed:
    """Make the image's seed, with the container that `start` starts, and remove older ones that nobody uses.

    Raises NoSeed, PostgresUnavailable and DockerException.
    """
    print(f"Preparing {image} for quick starts, once ...", file=sys.stderr, flush=True)  # noqa: T201  for a person
    attributes: dict[str, Any] = client.images.get(image).attrs
    environment = _environment(attributes)
    started = start(initdb_arguments(environment))
    try:
        with psycopg.connect(started.url) as connection:
            row = connection.execute("show data_checksums").fetchone()
        if row is None or row[0] != "off":
            raise NoSeed("its data have checksums")
        seed = _keep(client, started, f"{REPOSITORY}:{_key(attributes)}", image)
    finally:
        started.remove()
    prune(client)
    return seed


def add_template(
    client: DockerClient,
    bare: ContainerSeed,
    template: str,
    start: Callable[[ContainerSeed], Started],
    fill: Callable[[str], None],
) -> ContainerSeed:
    """Make a seed of a bare one, with what `fill` makes on the server of the URL that it is given.

    `start` starts a container whose data stay in it, and `template` is the digest of what fills it. Raises NoSeed,
    PostgresUnavailable, DockerException, and what `fill` raises.
    """
    base = client.images.get(bare.name).labels.get(BASE_LABEL, "")
    started = start(bare)
    try:
        fill(started.url)
        seed = _keep(client, started, _with_template(bare.name, template), base, template)
    finally:
        started.remove()
    prune(client)
    return seed


def _keep(
    client: DockerClient, started: Started, name: str, base: str, template: str | None = None
) -> ContainerSeed:
    """Shut a server down, and make its container's data the seed of this name."""
    container = client.containers.get(started.container_id)
    container.stop(timeout=_STOP_SECONDS)
    container.reload()
    if container.attrs["State"]["ExitCode"] != 0:
        raise NoSeed("it does not shut down cleanly")
    known = _environment(container.attrs).get(f"{_ENVIRONMENT}SECRET")
    where = _find_verifier(b"".join(container.get_archive(f"{DATA}/global")[0]), known)
    labels = {
        SEED_LABEL: json.dumps(where),
        BASE_LABEL: base,
        TEMPLATE_LABEL: template or "",
        # Those of the container would have the reaper remove the image with it.
        LABEL_SESSION_ID: "",
        OWNER_LABEL: "",
    }
    changes = "\n".join(f"LABEL {label}={json.dumps(value)}" for label, value in labels.items())
    container.commit(*name.split(":"), changes=changes)
    return ContainerSeed(name, **where, template=template)


def _environment(attributes: dict[str, Any]) -> dict[str, str]:
    return dict(each.split("=", 1) for each in attributes["Config"].get("Env") or [] if "=" in each)


def _with_template(bare: str, template: str) -> str:
    return f"{bare}-{template[:16]}"


def _key(attributes: dict[str, Any]) -> str:
    parts = [FORMAT, attributes["Id"], DATA]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _find_verifier(tar: bytes, known: str | None) -> dict[str, Any]:
    """Find the superuser's verifier in the directory of what all databases share, and whose its file is.

    It is the one that is `known`, where roles have been made since, else the only one.
    """
    found = []
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        for member in members:
            file = members.extractfile(member) if member.isfile() else None
            for match in VERIFIER.finditer(file.read()) if file is not None else ():
                if known is None or match.group().decode() == known:
                    place = {
                        "uid": member.uid,
                        "gid": member.gid,
                        "file": member.name,
                        "offset": match.start(),
                    }
                    found.append(place | {"iterations_width": len(match.group(1))})
    if len(found) != 1:
        raise NoSeed(f"the superuser's password is in it {len(found)} times")
    return found[0]


def seeds(client: DockerClient) -> list[dict[str, Any]]:
    """Return the engine's records of all seeds, the newest first. Raises DockerException."""
    found: list[dict[str, Any]] = client.api.images(filters={"label": SEED_LABEL})
    return sorted(found, key=lambda record: record["Created"], reverse=True)


def prune(client: DockerClient) -> None:
    """Remove seeds that no container uses: older than KEPT_DAYS, or beyond the newest few of one image and kind.

    One that has lost its name to another, as where two runs made it at once, is none of those few, and goes as well.
    """
    kept: dict[tuple[str, bool], int] = {}
    for record in seeds(client):
        age, named = time.time() - record["Created"], bool(record.get("RepoTags"))
        kind = record["Labels"].get(BASE_LABEL, ""), bool(record["Labels"].get(TEMPLATE_LABEL))
        kept[kind] = kept.get(kind, 0) + named
        most = KEPT_TEMPLATES_OF_A_BASE if kind[1] else KEPT_OF_A_BASE
        # A new one is about to get its name.
        if kept[kind] > most or age > (KEPT_DAYS * 86400 if named else NAMELESS_SECONDS):
            remove(client, record["Id"])


def remove(client: DockerClient, image: str) -> None:
    """Remove a seed, if no container uses it: the engine refuses otherwise."""
    with suppress(DockerException):
        client.api.remove_image(image)
