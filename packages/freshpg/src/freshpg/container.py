"""Containers with a server in them, by testcontainers: what each kind is given, and when it is ready or dead."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from docker.errors import DockerException, NotFound  # type: ignore[import-untyped] # it has no types
from testcontainers.community.postgres import PostgresContainer

from .container_seed import DATA, ENTRY_POINT, ContainerSeed
from .engine import engine_address, shown
from .ready import NotReady, no_connection, version_if_ready
from .reaper import labels
from .seeds import secret_of
from .server import ADMINISTRATIVE_DATABASE, PostgresUnavailable, local_url
from .settings import LEAK_SETTINGS, LOG_SETTINGS, TEST_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

USER = "postgres"
PORT = 5432
START_SECONDS = 120.0
_POLL_SECONDS = 0.005
_LOOK_SECONDS = 0.2
_AUTOPSY_SECONDS = 2.0
_REMOVED = "its container was removed"
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
                return _REMOVED
            except (DockerException, OSError):
                return f"Docker does not answer at {shown(engine_address())} any more"
            # A client is told by the network, which is quicker than the engine.
            if self.status != "running" or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        if self.status in ("removing", "dead"):
            return _REMOVED
        state = self.get_wrapped_container().attrs["State"]
        if self.status == "exited":
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
