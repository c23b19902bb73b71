"""A server in a container, by testcontainers, that lives as long as this process.

Importing this module imports docker and testcontainers: it is imported when a container is about to be started.
"""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
from docker.errors import DockerException, NotFound  # type: ignore[import-untyped] # it has no types
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer, Reaper
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID

from .binaries import temporary_initdb_arguments
from .docker_client import engine_address, find_engine, have_image
from .embedded import accepts_tcp, death_line, with_log
from .server import (
    ADMINISTRATIVE_DATABASE,
    SUPERUSER,
    TEST_SETTINGS,
    PostgresUnavailable,
    Server,
    connect_to_own,
    connected_version,
    last_line,
    local_url,
    major_version,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PORT = 5432
START_SECONDS = 120.0
REAPER_SECONDS = 20.0
_REAPER_PORT = 8080
_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.2
_NOTICE_SECONDS = 2.0
_LOG_LINES = 20

_reaper_connections: list[socket.socket] = []


def start_container(image: str, version: str, settings: Sequence[str], pull_seconds: float) -> Server:
    """Start a new server from the image, its data in memory and durability off; raise PostgresUnavailable.

    `version` is what the image says of itself; `settings` are further server settings, as `name=value`.
    """
    password = secrets.token_urlsafe(24)
    with _configured():
        notes = _start_reaper(pull_seconds)
        try:
            container = _container(image, major_version(version), password, settings)
        except (DockerException, OSError) as error:
            raise PostgresUnavailable(f"The container of {image} cannot be made: {error}.") from None

        def remove() -> None:
            # An engine that went away took its containers with it.
            with suppress(DockerException, OSError):
                container.stop()
            atexit.unregister(remove)

        def leave() -> str:
            _end_reaper()
            atexit.unregister(remove)
            return f"docker rm -f -v {container.get_wrapped_container().name}"

        atexit.register(remove)
        try:
            container.start()
            url, version = _wait_until_ready(container, image, password)
        except (DockerException, OSError) as error:
            remove()
            raise PostgresUnavailable(f"The container of {image} did not start: {error}.") from None
        except BaseException:
            remove()
            raise
    return Server(
        url,
        version,
        "docker",
        on_stop=remove,
        on_leave=leave,
        on_death=lambda: _describe_death(container),
        notes=notes,
    )


def _container(image: str, major: int, password: str, settings: Sequence[str]) -> DockerContainer:
    arguments = temporary_initdb_arguments(major, "linux")
    # The image's own entry point passes the user.
    arguments = [argument for argument in arguments if not argument.startswith("--username")]
    command = ["postgres", *(word for text in (*TEST_SETTINGS, *settings) for word in ("-c", text))]
    return (
        DockerContainer(image)
        .with_exposed_ports(PORT)
        .with_envs(
            POSTGRES_USER=SUPERUSER,
            POSTGRES_PASSWORD=password,
            POSTGRES_DB=ADMINISTRATIVE_DATABASE,
            POSTGRES_INITDB_ARGS=" ".join(arguments),
            # A place that suits every version: images differ in where their volume is.
            PGDATA="/pgtmp/data",
        )
        .with_tmpfs_mount("/pgtmp", "rw")
        .with_command(command)
    )


def _wait_until_ready(container: DockerContainer, image: str, password: str) -> tuple[str, str]:
    """Wait for a connection over TCP, which the server of the first start, for initialising, does not accept."""
    deadline, next_look = time.monotonic() + START_SECONDS, 0.0
    url = None
    refusal = "no port is mapped"
    while time.monotonic() < deadline:
        if time.monotonic() >= next_look:
            _look_whether_it_ended(container, image)
            next_look = time.monotonic() + _LOOK_SECONDS
        try:
            # The port may not be mapped yet although the container runs.
            url = url or local_url(
                container.get_exposed_port(PORT), password, host=container.get_container_host_ip()
            )
            with connect_to_own(url, seconds=2) as connection:
                return url, connected_version(connection)
        except (psycopg.OperationalError, ConnectionError, TimeoutError, StopIteration) as error:
            refusal = last_line(error)
        time.sleep(_POLL_SECONDS)
    message = f"The container of {image} accepted no connection within {START_SECONDS:.0f} s ({refusal})."
    raise PostgresUnavailable(with_log(message, _log(container)))


def _look_whether_it_ended(container: DockerContainer, image: str) -> None:
    try:
        container.reload()
    except NotFound:
        raise PostgresUnavailable(f"The container of {image} was removed while it started.") from None
    if container.status in ("exited", "dead"):
        raise PostgresUnavailable(
            with_log(f"The container of {image} stopped while it started.", _log(container))
        )


def _log(container: DockerContainer) -> str:
    log: bytes = container.get_wrapped_container().logs(tail=_LOG_LINES)
    return log.decode(errors="replace")


def _describe_death(container: DockerContainer) -> str | None:
    deadline = time.monotonic() + _NOTICE_SECONDS
    try:
        container.reload()
        # A client notices the end sooner than the engine does.
        while container.status == "running":
            place = (container.get_container_host_ip(), container.get_exposed_port(PORT))
            if accepts_tcp(*place) or time.monotonic() > deadline:
                return None
            time.sleep(_POLL_SECONDS)
            container.reload()
        state = container.get_wrapped_container().attrs["State"]
        memory = ", out of memory" if state.get("OOMKilled") else ""
        what = f"The PostgreSQL container ended with exit status {state.get('ExitCode')}{memory}"
        return death_line(what, _log(container))
    except NotFound:
        return "The PostgreSQL container was removed."
    except (DockerException, OSError, StopIteration):
        return "The PostgreSQL container cannot be reached: Docker does not answer any more."


@contextmanager
def _configured() -> Iterator[None]:
    """Have testcontainers look often, and find its reaper's image under TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX.

    With a prefix, testcontainers 4.15 does not recognise its own reaper and starts reapers for reapers without end.
    """
    config = testcontainers_config
    before = (
        config.ryuk_image,
        config.hub_image_name_prefix,
        config.sleep_time,
        config.max_tries,
        config.ryuk_disabled,
    )
    config.ryuk_image, config.hub_image_name_prefix = config.hub_image_name_prefix + config.ryuk_image, ""
    config.sleep_time, config.max_tries = 0.05, round(START_SECONDS / 0.05)
    address, _ = engine_address()
    if address.startswith("unix://") and "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE" not in os.environ:
        # testcontainers would find it with a client that it does not close.
        config.ryuk_docker_socket = address.removeprefix("unix://")
    try:
        yield
    finally:
        config.ryuk_image, config.hub_image_name_prefix, config.sleep_time, config.max_tries, disabled = (
            before
        )
        config.ryuk_disabled = disabled


def _start_reaper(pull_seconds: float) -> tuple[str, ...]:
    """Start testcontainers' reaper and make sure that it watches; return a note for people if it does not."""
    if testcontainers_config.ryuk_disabled or _reaper_connections:
        return ()
    try:
        engine = find_engine()
        try:
            have_image(engine.client, testcontainers_config.ryuk_image, min(pull_seconds, REAPER_SECONDS))
        finally:
            engine.client.close()
        Reaper.get_instance()
        _reaper_connections.append(_connect_to_reaper())
    except Exception as error:  # noqa: BLE001 (docker, requests and testcontainers raise their own; the run goes on)
        _end_reaper()
        return (
            f"No reaper for the container, which will stay if this process is killed: {last_line(error)}",
        )
    atexit.register(_end_reaper)
    return ()


def _connect_to_reaper() -> socket.socket:
    """Tell the reaper what to watch until it confirms; return the connection, which keeps it waiting.

    testcontainers does not read the confirmation (testcontainers-python #1114), and a port that Docker forwards
    accepts a connection before the reaper listens, and loses what is sent.
    """
    docker = DockerClient()
    try:
        reaper = docker.client.containers.get(f"testcontainers-ryuk-{SESSION_ID}").id
        mode = docker.get_connection_mode()
        if mode == ConnectionMode.bridge_ip:
            place = (docker.bridge_ip(reaper), _REAPER_PORT)
        else:
            host = docker.gateway_ip(reaper) if mode == ConnectionMode.gateway_ip else docker.host()
            place = (host, int(docker.port(reaper, _REAPER_PORT)))
    finally:
        docker.client.close()
    deadline = time.monotonic() + REAPER_SECONDS
    while time.monotonic() < deadline:
        connection = None
        with suppress(OSError):
            connection = socket.create_connection(place, timeout=_NOTICE_SECONDS)
            connection.sendall(f"label={LABEL_SESSION_ID}={SESSION_ID}\r\n".encode())
            if connection.recv(16).startswith(b"ACK"):
                return connection
        if connection is not None:
            connection.close()
        time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"it did not answer within {REAPER_SECONDS:g} s")


def _end_reaper() -> None:
    """Remove the reaper, which would remove this process's containers when it ends, and start no other."""
    with suppress(DockerException, OSError):
        Reaper.delete_instance()
    while _reaper_connections:
        _reaper_connections.pop().close()
    testcontainers_config.ryuk_disabled = True
