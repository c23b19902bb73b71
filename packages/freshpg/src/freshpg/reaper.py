"""Who removes the containers of a run that is killed: testcontainers' reaper, Ryuk, and without it the next run."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from docker.errors import DockerException  # type: ignore[import-untyped] # it has no types
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer, Reaper
from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID

from .engine import connect_to_engine, engine_address, have_image
from .owner import Owner, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient  # type: ignore[import-untyped] # it has no types

OWNER_LABEL = "postgres-for-tests.owner"
REAPER_PREFIX = "testcontainers-ryuk-"
KEPT_PREFIX = "postgres-kept-"
"""How the name of a container begins that outlives its run on request: a label cannot be taken away again."""
ACK_SECONDS = 20.0
_PORT = 8080
_STATUS_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 2.0
_RETRY_SECONDS = 0.01
_SETTINGS = ("ryuk_disabled", "sleep_time", "max_tries", "hub_image_name_prefix", "ryuk_image")


def labels() -> dict[str, str]:
    """Return what a container has to bear to be removed by a later run, if this process ends without doing it."""
    return {OWNER_LABEL: str(this_process())}


def remove_abandoned(client: DockerClient) -> int:
    """Remove containers of processes of this machine that are gone for certain; return how many there were.

    One that a run was asked to keep stays, and so does a reaper that runs: it has work to do, and goes by itself.
    """
    removed = 0
    # One that another run is removing cannot be looked at, and the engine's own record of labels is enough.
    for found in client.api.containers(all=True, filters={"label": OWNER_LABEL}):
        owner = Owner.parse(found["Labels"][OWNER_LABEL])
        staying = (f"/{KEPT_PREFIX}", *([f"/{REAPER_PREFIX}"] if found["State"] == "running" else []))
        kept = any(name.startswith(staying) for name in found["Names"])
        if owner is not None and owner.is_gone() and not kept:
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
            if Reaper._instance is None:  # noqa: SLF001 (it has no other way to ask)
                _start_reaper()
        except Exception as error:  # noqa: BLE001 (the thread's outermost edge: without a reaper the run goes on)
            self._failure = (str(error).strip().splitlines() or [type(error).__name__])[0]
            end_reaper()


def _start_reaper() -> None:
    """Start Ryuk as testcontainers does, and take it for armed when it has answered.

    testcontainers sends what is to be watched and reads no answer (testcontainers-python #1114), though a port that
    Docker forwards takes a connection before Ryuk listens, and loses what is sent; where the port refuses it, it waits
    for half a second. What it would keep of its reaper is kept for it, or it would start another.
    """
    config = testcontainers_config
    container = (
        DockerContainer(config.ryuk_image)
        .with_name(f"{REAPER_PREFIX}{SESSION_ID}")
        .with_exposed_ports(_PORT)
        .with_volume_mapping(config.ryuk_docker_socket, "/var/run/docker.sock", "rw")
        .with_kwargs(privileged=config.ryuk_privileged, auto_remove=True, labels=labels())
        .with_env("RYUK_RECONNECTION_TIMEOUT", config.ryuk_reconnection_timeout)
    )
    Reaper._container = container  # noqa: SLF001 (see above)
    atexit.register(Reaper.delete_instance)
    container.start()
    # It is armed while this connection is open.
    Reaper._socket = _armed(container)  # noqa: SLF001 (see above)
    Reaper._instance = Reaper()  # noqa: SLF001 (see above)


def _armed(container: DockerContainer) -> socket.socket:
    """Tell Ryuk whose containers to remove, again until it answers; return the connection."""
    deadline = time.monotonic() + ACK_SECONDS
    place = None
    while time.monotonic() < deadline:
        # The port is at times not mapped yet when the container runs already.
        with suppress(OSError):
            place = place or (container.get_container_host_ip(), int(container.get_exposed_port(_PORT)))
            line = socket.create_connection(place, timeout=_ANSWER_SECONDS)
            try:
                line.sendall(f"label={LABEL_SESSION_ID}={SESSION_ID}\r\n".encode())
                if line.recv(16).startswith(b"ACK"):
                    return line
            except BaseException:
                line.close()
                raise
            line.close()
        time.sleep(_RETRY_SECONDS)
    raise TimeoutError(f"it did not answer within {ACK_SECONDS:g} s")


def end_reaper() -> None:
    """Remove Ryuk, unless it has removed itself or went with its engine."""
    with suppress(DockerException, OSError):
        Reaper.delete_instance()
    # Where that failed, testcontainers would try again as the process ends, and print why it cannot.
    Reaper._container = Reaper._instance = None  # noqa: SLF001 (it has no other way)


def disarm_for_good() -> None:
    """Remove Ryuk and start none again in this process: it would remove, at the end, what is to stay.

    Raises DockerException where it cannot be removed.
    """
    Reaper.delete_instance()
    testcontainers_config.ryuk_disabled = True


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
