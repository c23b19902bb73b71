"""A server in a container, by testcontainers, that lives as long as this process.

Importing this module imports docker and testcontainers: it is imported when a container is about to be started.
"""

from __future__ import annotations

import atexit
import os
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
from docker.errors import DockerException, NotFound  # type: ignore[import-untyped] # it has no types
from testcontainers.core.config import testcontainers_config as config
from testcontainers.core.container import DockerContainer, Reaper

from .binaries import temporary_initdb_arguments
from .docker_client import engine_address, have_image
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
REAPER_PULL_SECONDS = 20.0
_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.2
_NOTICE_SECONDS = 2.0
_LOG_LINES = 20


def start_container(image: str, version: str, settings: Sequence[str], pull_seconds: float) -> Server:
    """Start a new server from the image, its data in memory and durability off; raise PostgresUnavailable.

    `version` is what the image says of itself; `settings` are further server settings, as `name=value`.
    """
    password = secrets.token_urlsafe(24)
    with _configured():
        notes = _start_reaper(min(pull_seconds, REAPER_PULL_SECONDS))
        try:
            container = _container(image, major_version(version), password, settings)

            def remove() -> None:
                # An engine that went away took its containers with it.
                with suppress(DockerException, OSError):
                    container.stop()
                atexit.unregister(remove)

            atexit.register(remove)
            try:
                container.start()
                url, version = _wait_until_ready(container, image, password)
            except BaseException:
                remove()
                raise
        except (DockerException, OSError) as error:
            raise PostgresUnavailable(f"The container of {image} did not start: {error}.") from None

    def leave() -> str:
        # The reaper would remove the container when this process ends.
        Reaper.delete_instance()
        atexit.unregister(remove)
        return f"docker rm -f -v {container.get_wrapped_container().name}"

    death = lambda: _describe_death(container)  # noqa: E731
    return Server(url, version, "docker", on_stop=remove, on_leave=leave, on_death=death, notes=notes)


def _container(image: str, major: int, password: str, settings: Sequence[str]) -> DockerContainer:
    # The image's own entry point passes the user.
    arguments = [word for word in temporary_initdb_arguments(major, "linux") if "--username" not in word]
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
    refusal = "no port is mapped"
    while time.monotonic() < deadline:
        if time.monotonic() >= next_look:
            container.reload()
            if container.status in ("exited", "dead"):
                raise PostgresUnavailable(
                    with_log(f"The container of {image} stopped while it started.", _log(container))
                )
            next_look = time.monotonic() + _LOOK_SECONDS
        try:
            # The port may not be mapped yet although the container runs.
            host, port = container.get_container_host_ip(), container.get_exposed_port(PORT)
            url = local_url(port, password, host=host)
            with connect_to_own(url, seconds=2) as connection:
                return url, connected_version(connection)
        except (psycopg.OperationalError, ConnectionError, TimeoutError, StopIteration) as error:
            refusal = last_line(error)
        time.sleep(_POLL_SECONDS)
    message = f"The container of {image} accepted no connection within {START_SECONDS:.0f} s ({refusal})."
    raise PostgresUnavailable(with_log(message, _log(container)))


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
    changes = {
        "ryuk_image": config.hub_image_name_prefix + config.ryuk_image,
        "hub_image_name_prefix": "",
        "sleep_time": 0.05,
        "max_tries": round(START_SECONDS / 0.05),
        "ryuk_disabled": config.ryuk_disabled,
    }
    before = {name: getattr(config, name) for name in changes}
    for name, value in changes.items():
        setattr(config, name, value)
    address, _ = engine_address()
    if address.startswith("unix://") and "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE" not in os.environ:
        # testcontainers would find it with a client that it does not close.
        config.ryuk_docker_socket = address.removeprefix("unix://")
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def _start_reaper(pull_seconds: float) -> tuple[str, ...]:
    """Start testcontainers' reaper; if that fails, return a note for people, and start the container without it."""
    if config.ryuk_disabled:
        return ()
    try:
        have_image(config.ryuk_image, pull_seconds)
        Reaper.get_instance()
    except Exception as error:  # noqa: BLE001 (docker, requests and testcontainers raise their own; the run goes on)
        Reaper.delete_instance()
        config.ryuk_disabled = True
        reason = last_line(error)
        return (f"No reaper for the container, which will stay if this process is killed: {reason}",)
    atexit.register(Reaper.delete_instance)
    return ()
