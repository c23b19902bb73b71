"""Start a server in a container that lives as long as its owner, of a seed where there is one.

Importing this module imports docker and testcontainers, which takes about as long as an embedded server takes to
start: it is imported when a container is about to be started, and not before.
"""

from __future__ import annotations

import atexit
import secrets
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from docker.errors import DockerException  # type: ignore[import-untyped] # it has no types
from testcontainers.core.config import testcontainers_config

from .container import START_SECONDS, EphemeralPostgres, GrowingPostgres, SeededPostgres
from .container_seed import DATA, ContainerSeed, NoSeed, add_template, find_seed, make_seed
from .container_seed import remove as remove_seed
from .engine import connect_to_engine
from .reaper import KEPT_PREFIX, Arming, configured, disarm_for_good, end_reaper, remove_abandoned
from .seeds import IMAGE_SETTING, INSIDE_SETTING, SEEDED_TEMPLATE, WANTED_SETTING
from .server import PostgresUnavailable, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from docker import DockerClient  # type: ignore[import-untyped] # it has no types

RYUK_PULL_SECONDS = 30.0

_users: set[object] = set()
"""The containers of this process that were not removed yet, and those that are about to start: the one reaper of them
all goes with the last."""


class Started:
    """A container that runs and has to be removed, at the latest when this process ends."""

    def __init__(self, container: EphemeralPostgres) -> None:
        self._container = container
        _users.add(self)
        atexit.register(self.remove)
        try:
            container.start()
            self.url = container.administrative_url()
        except (DockerException, OSError) as error:
            self.remove()
            raise PostgresUnavailable(f"The container of {container.shown} did not start: {error}") from None
        except BaseException:
            self.remove()
            raise

    @property
    def container_id(self) -> str:
        return self._container.get_container_id()

    def server(self, notes: tuple[str, ...]) -> Server:
        return Server(
            self.url,
            self._container.version,
            "docker",
            self.remove,
            notes,
            log=self.container_id,
            autopsy=self._container.autopsy,
            hand_over=self.hand_over,
        )

    def remove(self) -> None:
        # An engine that went away took its containers with it.
        with suppress(DockerException, OSError):
            self._container.stop()
        _leave(self)
        # Last, so that what a second Ctrl-C interrupts is done at exit.
        atexit.unregister(self.remove)

    def hand_over(self) -> str:
        """Have the container outlive this process and be no later run's to remove; return the command that ends it."""
        name = f"{KEPT_PREFIX}{secrets.token_hex(4)}"
        self._container.get_wrapped_container().rename(name)
        disarm_for_good()
        _users.discard(self)
        atexit.unregister(self.remove)
        return f"docker rm -f -v {name}"


def _leave(user: object) -> None:
    _users.discard(user)
    if not _users:
        end_reaper()


def start_container(image: str, pull_seconds: float, template: str | None) -> Server:
    """Start a new server from the image, its data in memory, durability off. Raises PostgresUnavailable.

    It runs a seed of the image, made at the first use, and the image itself where that does not work. One that has the
    template of this digest in it is preferred.
    """
    try:
        with _watched(pull_seconds) as notes:
            container = _seeded(image, template) or Started(EphemeralPostgres(image))
    except (DockerException, OSError) as error:
        raise PostgresUnavailable(f"The container of {image} cannot be made: {error}") from None
    return container.server(tuple(notes))


def make_template_image(image: str, template: str, fill: Callable[[str], None]) -> None:
    """Have the image's later containers begin with what `fill` makes on a new server, given its URL.

    Where the image has no seed, nothing is done. Raises NoSeed, PostgresUnavailable, DockerException, OSError, and what
    `fill` raises.
    """
    client = _patient_client()
    try:
        bare = find_seed(client, image)
        if bare is not None:
            with _watched(RYUK_PULL_SECONDS):
                add_template(client, bare, template, lambda seed: Started(GrowingPostgres(seed, image)), fill)
    finally:
        client.close()


@contextmanager
def _watched(pull_seconds: float) -> Iterator[list[str]]:
    """Have the reaper watch over what is started in the block; what it has to tell people is there afterwards."""
    notes: list[str] = []
    this_start = object()
    _users.add(this_start)
    try:
        with configured():
            # Beside the server's container, for its start takes as long.
            arming = Arming(min(pull_seconds, RYUK_PULL_SECONDS))
            # It is armed once, and not again by each container.
            testcontainers_config.ryuk_disabled = True
            try:
                yield notes
            finally:
                notes += arming.notes()
    finally:
        _leave(this_start)


def _patient_client() -> DockerClient:
    client = connect_to_engine()
    # It has answered, and a commit may take a busy one longer than an answer.
    client.api.timeout = START_SECONDS
    return client


def _seeded(image: str, template: str | None) -> Started | None:
    """Start a container of the image's seed, made first if need be; None, and a line, where that does not work."""
    client = _patient_client()
    seed = None
    try:
        remove_abandoned(client)
        seed = find_seed(client, image, template)
        made = seed or make_seed(client, image, lambda arguments: _unseeded(image, arguments))
        return Started(SeededPostgres(made, image, settings=_about_template(made, image, template)))
    except (NoSeed, PostgresUnavailable, DockerException, OSError) as error:
        first, *log = str(error).splitlines() or [type(error).__name__]
        reason = first.removesuffix(" Its log ends:").rstrip(".") + (f" ({log[-1].strip()})" if log else "")
        print(f"No quick start for {image}: {reason}.", file=sys.stderr, flush=True)  # noqa: T201  for a person
        if seed is not None:
            remove_seed(client, seed.name)
        return None
    finally:
        client.close()


def _about_template(seed: ContainerSeed, image: str, template: str | None) -> Sequence[str]:
    """Return the settings by which the server tells whoever prepares the template what there is, and what is not."""
    if seed.template is not None:
        return [f"{INSIDE_SETTING}={SEEDED_TEMPLATE}"]
    return [] if template is None else [f"{WANTED_SETTING}={template}", f"{IMAGE_SETTING}={image}"]


def _unseeded(image: str, initdb_arguments: str) -> Started:
    """Start a container whose data are to become a seed."""
    container = EphemeralPostgres(image)
    container.tmpfs.clear()
    container.with_env("PGDATA", DATA)
    container.with_env("POSTGRES_INITDB_ARGS", initdb_arguments)
    return Started(container)
