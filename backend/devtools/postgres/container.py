"""A server in a container that lives as long as its owner, by testcontainers.

Importing this module imports docker and testcontainers, which takes about as long as an embedded server takes to
start: it is imported when a container is about to be started, and not before.
"""

from __future__ import annotations

import atexit
import os
import secrets
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
from docker.errors import DockerException, NotFound  # type: ignore[import-untyped] # it has no types
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import Reaper

from .embedded import no_connection, refusal_of
from .engine import connect_to_engine, engine_address, have_image
from .leaks import LEAK_SETTINGS
from .log import LOG_SETTINGS
from .server import ADMINISTRATIVE_DATABASE, PostgresUnavailable, Server, local_url, server_version

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "postgres"
PORT = 5432
START_SECONDS = 120.0
RYUK_PULL_SECONDS = 30.0
_POLL_SECONDS = 0.005
_LOOK_SECONDS = 0.2
_STATUS_POLL_SECONDS = 0.05
_AUTOPSY_SECONDS = 2.0
KEPT_PREFIX = "postgres-kept-"
"""How the name of a container begins that outlives its run on request."""
_SETTINGS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "timezone=UTC",
    *LOG_SETTINGS,
    *LEAK_SETTINGS,
)


_started: set[EphemeralPostgres] = set()
"""Those of this process that were not removed yet: the one reaper of them all goes with the last."""


class EphemeralPostgres(PostgresContainer):
    """A container whose data lies in memory and whose start is waited for by real connections."""

    def __init__(self, image: str) -> None:
        # All given, for what is not is read from POSTGRES_* in the environment, which may mean the application's.
        super().__init__(
            image,
            port=PORT,
            username=USER,
            password=secrets.token_urlsafe(24),
            dbname=ADMINISTRATIVE_DATABASE,
            driver=None,
        )
        # A place that suits every version: images differ in where their volume is.
        self.with_tmpfs_mount("/pgtmp", "rw")
        self.with_env("PGDATA", "/pgtmp/data")
        self.with_env("POSTGRES_INITDB_ARGS", "--no-sync --encoding=UTF8")
        self.with_command(["postgres", *(word for text in _SETTINGS for word in ("-c", text))])

    def administrative_url(self) -> str:
        """Return the URL by which this machine reaches the server."""
        port = self.get_exposed_port(PORT)
        return local_url(port, self.username, self.password, host=self.get_container_host_ip())

    def _connect(self) -> None:
        """Wait for a connection over TCP, which the socket-only server of the first start does not take."""
        deadline = time.monotonic() + START_SECONDS
        next_look = time.monotonic() + _LOOK_SECONDS
        url = refusal = None
        while time.monotonic() < deadline:
            url = url or self._url_if_mapped()
            if url is None or time.monotonic() >= next_look:
                self._look_whether_it_died()
                next_look = time.monotonic() + _LOOK_SECONDS
            if url is not None and (refusal := refusal_of(url)) is None:
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
                f"The container of {self.image} was removed while it started."
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
                return f"Docker does not answer at {engine_address()} any more"
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
        return f"The container of {self.image} {what}." + (f" Its log ends:\n{tail}" if tail else "")


def start_container(image: str, pull_seconds: float) -> Server:
    """Start a new server from the image, its data in memory, durability off. Raises PostgresUnavailable."""
    with _reaper_configured(min(pull_seconds, RYUK_PULL_SECONDS)) as notes:
        try:
            container = EphemeralPostgres(image)
        except (DockerException, OSError) as error:
            raise PostgresUnavailable(f"The container of {image} cannot be made: {error}") from None

        def remove() -> None:
            atexit.unregister(remove)
            _started.discard(container)
            for removal in (container.stop,) if _started else (container.stop, Reaper.delete_instance):
                # An engine that went away took its containers with it, and a reaper removes itself as well.
                with suppress(DockerException, OSError):
                    removal()
            if not _started:
                # Where that failed, testcontainers would try again as the process ends, and print why it cannot.
                Reaper._container = None  # noqa: SLF001

        def hand_over() -> str:
            atexit.unregister(remove)
            _started.discard(container)
            # It would remove the container some seconds after this process ended.
            Reaper.delete_instance()
            name = f"{KEPT_PREFIX}{secrets.token_hex(4)}"
            container.get_wrapped_container().rename(name)
            return f"docker rm -f -v {name}"

        _started.add(container)
        atexit.register(remove)
        try:
            container.start()
            url = container.administrative_url()
            version = server_version(url)
        except (DockerException, OSError, psycopg.OperationalError) as error:
            remove()
            raise PostgresUnavailable(f"The container of {image} did not start: {error}") from None
        except BaseException:
            remove()
            raise
    return Server(
        url,
        version,
        "docker",
        remove,
        notes,
        log=str(container.get_wrapped_container().id),
        autopsy=container.autopsy,
        hand_over=hand_over,
    )


@contextmanager
def _reaper_configured(pull_seconds: float) -> Iterator[tuple[str, ...]]:
    """Let testcontainers use its reaper if its image can be had, and else do without, and say so."""
    config = testcontainers_config
    before = (
        config.ryuk_disabled,
        config.sleep_time,
        config.max_tries,
        config.hub_image_name_prefix,
        config.ryuk_image,
    )
    # Left to testcontainers, a prefix hides the reaper's image from it, and it starts reapers for reapers without end.
    config.ryuk_image, config.hub_image_name_prefix = config.hub_image_name_prefix + config.ryuk_image, ""
    address = engine_address()
    if address.startswith("unix://") and "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE" not in os.environ:
        # Asked for it, testcontainers makes a client that nobody closes.
        config.ryuk_docker_socket = address.removeprefix("unix://")
    try:
        notes: tuple[str, ...] = ()
        if config.ryuk_disabled:
            notes = ("No reaper for containers (it is disabled): a run that is killed leaves its container.",)
        else:
            client = connect_to_engine()
            try:
                have_image(client, config.ryuk_image, pull_seconds)
            except PostgresUnavailable as error:
                config.ryuk_disabled = True
                notes = (f"No reaper for containers ({error}): a run that is killed leaves its container.",)
                print(notes[0], file=sys.stderr, flush=True)  # noqa: T201  for a person
            finally:
                client.close()
        seconds = config.timeout
        config.sleep_time, config.max_tries = (
            _STATUS_POLL_SECONDS,
            max(1, int(seconds / _STATUS_POLL_SECONDS)),
        )
        yield notes
    finally:
        (
            config.ryuk_disabled,
            config.sleep_time,
            config.max_tries,
            config.hub_image_name_prefix,
            config.ryuk_image,
        ) = before
