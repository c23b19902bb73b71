"""A server in a container that lives as long as its owner, by testcontainers.

Importing this module imports docker and testcontainers, which takes about as long as an embedded server takes to
start: it is imported when a container is about to be started, and not before.
"""

from __future__ import annotations

import atexit
import secrets
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from docker.errors import DockerException, NotFound  # type: ignore[import-untyped] # it has no types
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config

from .container_seed import (
    DATA,
    ENTRY_POINT,
    ContainerSeed,
    NoSeed,
    add_template,
    find_seed,
    make_seed,
)
from .container_seed import remove as remove_seed
from .engine import connect_to_engine, engine_address, shown
from .ready import NotReady, no_connection, version_if_ready
from .reaper import KEPT_PREFIX, Arming, configured, disarm_for_good, end_reaper, labels, remove_abandoned
from .seeds import IMAGE_SETTING, INSIDE_SETTING, SEEDED_TEMPLATE, WANTED_SETTING, secret_of
from .server import ADMINISTRATIVE_DATABASE, PostgresUnavailable, Server, local_url
from .settings import LEAK_SETTINGS, LOG_SETTINGS, TEST_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from docker import DockerClient  # type: ignore[import-untyped] # it has no types

USER = "postgres"
PORT = 5432
START_SECONDS = 120.0
RYUK_PULL_SECONDS = 30.0
_POLL_SECONDS = 0.005
_LOOK_SECONDS = 0.2
_AUTOPSY_SECONDS = 2.0
_SETTINGS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "timezone=UTC",
    *LOG_SETTINGS,
    *LEAK_SETTINGS,
    *TEST_SETTINGS,
)


_users: set[object] = set()
"""The containers of this process that were not removed yet, and those that are about to start: the one reaper of them
all goes with the last."""


class EphemeralPostgres(PostgresContainer):
    """A container whose data lies in memory and whose start is waited for by real connections."""

    version = ""

    def __init__(self, image: str, shown: str | None = None, *, settings: Sequence[str] = ()) -> None:
        # All given, for what is not is read from POSTGRES_* in the environment, which may mean the application's.
        super().__init__(
            image,
            port=PORT,
            username=USER,
            password=secrets.token_urlsafe(24),
            dbname=ADMINISTRATIVE_DATABASE,
            driver=None,
        )
        self.shown = shown or image
        # A place that suits every version: images differ in where their volume is.
        self.with_tmpfs_mount("/pgtmp", "rw")
        self.with_env("PGDATA", "/pgtmp/data")
        self.with_env("POSTGRES_INITDB_ARGS", "--no-sync --encoding=UTF8")
        self.with_command(["postgres", *(word for text in (*_SETTINGS, *settings) for word in ("-c", text))])
        self.with_kwargs(labels=labels())

    def administrative_url(self) -> str:
        """Return the URL by which this machine reaches the server."""
        port = self.get_exposed_port(PORT)
        return local_url(port, self.username, self.password, host=self.get_container_host_ip())

    def _connect(self) -> None:
        """Wait for a connection over TCP, which the socket-only server of the first start does not take."""
        deadline = time.monotonic() + START_SECONDS
        next_look = time.monotonic() + _LOOK_SECONDS
        url = None
        refusal: str | None = None
        while time.monotonic() < deadline:
            url = url or self._url_if_mapped()
            if url is None or time.monotonic() >= next_look:
                self._look_whether_it_died()
                next_look = time.monotonic() + _LOOK_SECONDS
            if url is not None:
                try:
                    self.version = version_if_ready(url)
                except NotReady as error:
                    refusal = str(error)
                else:
                    return
            time.sleep(_POLL_SECONDS)
        raise PostgresUnavailable(self._death(f"is of no use: {no_connection(START_SECONDS, refusal)}"))

    def _url_if_mapped(self) -> str | None:
        # The port is at times not mapped yet when the container runs already, and a container that died has none.
        with suppress(ConnectionError, TimeoutError):
            return self.administrative_url()
        return None

    def _look_whether_it_died(self) -> None:
        try:
            self.reload()
        except NotFound:
            raise PostgresUnavailable(
                f"The container of {self.shown} was removed while it started."
            ) from None
        if self.status in ("exited", "dead"):
            raise PostgresUnavailable(self._death("stopped while it started"))

    def autopsy(self) -> str:
        """Say what became of the container; nothing where it runs, and as far as its engine knows."""
        deadline = time.monotonic() + _AUTOPSY_SECONDS
        while True:
            try:
                self.reload()
            except NotFound:
                return "its container was removed"
            except (DockerException, OSError):
                return f"Docker does not answer at {shown(engine_address())} any more"
            # A client is told by the network, which is quicker than the engine.
            if self.status != "running" or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        state = self.get_wrapped_container().attrs["State"]
        if self.status in ("exited", "dead"):
            reason = " for want of memory" if state.get("OOMKilled") else ""
            return f"its container ended{reason} with exit code {state.get('ExitCode')}"
        return "" if self.status == "running" else f"its container is {self.status}"

    def _death(self, what: str) -> str:
        log = self.get_wrapped_container().logs(tail=20).decode(errors="replace").strip()
        tail = "\n".join(f"  {line}" for line in log.splitlines())
        return f"The container of {self.shown} {what}." + (f" Its log ends:\n{tail}" if tail else "")


class SeededPostgres(EphemeralPostgres):
    """One whose data are in its image already, and copied into memory before the server starts."""

    def __init__(self, seed: ContainerSeed, shown: str, *, settings: Sequence[str] = ()) -> None:
        super().__init__(seed.name, shown, settings=settings)
        self.with_tmpfs_mount("/pgtmp", f"rw,uid={seed.uid},gid={seed.gid},mode=0700")
        self.with_envs(**seed.environment(secret_of(self.password)))
        self.with_kwargs(labels=labels(), entrypoint=ENTRY_POINT, user=f"{seed.uid}:{seed.gid}")

    def _configure(self) -> None:
        """Set none of the variables by which the image's own entry point initialises."""


class GrowingPostgres(SeededPostgres):
    """One whose data stay in its own layer, to become another seed."""

    def __init__(self, seed: ContainerSeed, shown: str) -> None:
        super().__init__(seed, shown)
        self.tmpfs.clear()
        self.with_env("PGDATA", DATA)


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
