"""Who removes the containers of a run that is killed: testcontainers' reaper, Ryuk, and without it the next run."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from docker.errors import DockerException  # type: ignore[import-untyped] # it has no types
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import Reaper
from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID

from .engine import connect_to_engine, engine_address, have_image
from .owner import Owner, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

OWNER_LABEL = "postgres-for-tests.owner"
ACK_SECONDS = 10.0
_PORT = 8080
_STATUS_POLL_SECONDS = 0.05
_RETRY_SECONDS = 0.02
_SETTINGS = ("ryuk_disabled", "sleep_time", "max_tries", "hub_image_name_prefix", "ryuk_image")


def labels() -> dict[str, str]:
    """Return what a container has to bear to be removed by a later run, if this process ends without doing it."""
    return {OWNER_LABEL: str(this_process())}


def remove_abandoned(client: DockerClient) -> int:
    """Remove containers of processes of this machine that are gone for certain; return how many there were."""
    removed = 0
    # One that another run is removing cannot be looked at, and the engine's own record of labels is enough.
    for found in client.api.containers(all=True, filters={"label": OWNER_LABEL}):
        owner = Owner.parse(found["Labels"][OWNER_LABEL])
        if owner is not None and owner.is_gone():
            with suppress(DockerException):
                client.api.remove_container(found["Id"], force=True, v=True)
                removed += 1
    return removed


class Arming:
    """Ryuk's start, which runs beside that of the container which it is to watch."""

    def __init__(self, pull_seconds: float) -> None:
        self._pull_seconds = pull_seconds
        self._failure: str | None = None
        self._thread: threading.Thread | None = None
        if testcontainers_config.ryuk_disabled:
            self._failure = "it is disabled"
        else:
            self._thread = threading.Thread(target=self._arm, daemon=True, name="arming the reaper")
            self._thread.start()

    def notes(self) -> tuple[str, ...]:
        """Wait until it is armed; return a line for people where it cannot be, which is said on stderr as well."""
        if self._thread is not None:
            self._thread.join()
        if self._failure is None:
            return ()
        note = (
            f"No reaper for containers ({self._failure}): a run that is killed leaves its container until the next one "
            "that uses Docker here removes it."
        )
        if self._thread is not None:
            print(note, file=sys.stderr, flush=True)  # noqa: T201  for a person
        return (note,)

    def _arm(self) -> None:
        try:
            client = connect_to_engine()
            try:
                have_image(client, testcontainers_config.ryuk_image, self._pull_seconds)
            finally:
                client.close()
            known = Reaper._instance is not None  # noqa: SLF001 (it has no other way to ask)
            Reaper.get_instance()
            if not known:
                _confirm()
        except Exception as error:  # noqa: BLE001 (the thread's outermost edge: without a reaper the run goes on)
            self._failure = (str(error).strip().splitlines() or [type(error).__name__])[0]
            with suppress(DockerException, OSError):
                Reaper.delete_instance()


def _confirm() -> None:
    """Read Ryuk's answer, and ask again until it comes: testcontainers does not (testcontainers-python #1114).

    A port that Docker forwards takes the connection before Ryuk listens, and what is sent then is lost.
    """
    deadline = time.monotonic() + ACK_SECONDS
    asked = f"label={LABEL_SESSION_ID}={SESSION_ID}\r\n".encode()
    container: Any = Reaper._container  # noqa: SLF001 (kept by nobody else)
    place = (container.get_container_host_ip(), int(container.get_exposed_port(_PORT)))
    line = Reaper._socket  # noqa: SLF001
    while time.monotonic() < deadline:
        with suppress(OSError):
            if line is None:
                line = socket.create_connection(place, timeout=1)
                line.sendall(asked)
            if line.recv(16).startswith(b"ACK"):
                Reaper._socket = line  # noqa: SLF001 (Ryuk watches over us while it is open)
                return
        if line is not None:
            line.close()
            line = None
        time.sleep(_RETRY_SECONDS)
    raise TimeoutError(f"it did not answer within {ACK_SECONDS:g} s")


@contextmanager
def configured() -> Iterator[None]:
    """Have testcontainers look for its reaper where it can be, and poll often."""
    config = testcontainers_config
    before = {name: getattr(config, name) for name in _SETTINGS}
    # Left to testcontainers, a prefix hides the reaper's image from it, and it starts reapers for reapers without end.
    config.ryuk_image, config.hub_image_name_prefix = config.hub_image_name_prefix + config.ryuk_image, ""
    address = engine_address()
    if address.startswith("unix://") and "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE" not in os.environ:
        # Asked for it, testcontainers makes a client that nobody closes.
        config.ryuk_docker_socket = address.removeprefix("unix://")
    tries = max(1, int(config.timeout / _STATUS_POLL_SECONDS))
    config.sleep_time, config.max_tries = _STATUS_POLL_SECONDS, tries
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
