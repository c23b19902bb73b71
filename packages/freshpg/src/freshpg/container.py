"""A server in a container, by testcontainers, whose reaper removes it if this process ends without stopping it.

Importing this module imports docker and testcontainers: it is imported when a container is about to be started.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from docker.errors import DockerException, NotFound
from testcontainers.core.config import testcontainers_config as config
from testcontainers.core.container import DockerContainer, Reaper

from .binaries import initdb_arguments
from .docker_client import engine_address, environment_for
from .libpq import last_line, major_version, without_libpq_variables
from .server import (
    ADMINISTRATIVE_DATABASE,
    NOTICE_SECONDS,
    SUPERUSER,
    TEST_SETTINGS,
    PostgresUnavailable,
    Server,
    death_line,
    local_url,
    wait_until_ready,
)

PORT = 5432
_LOOK_SECONDS = 0.05
_LOG_LINES = 20


@without_libpq_variables()
def start_container(image: str, version: str, settings: Sequence[str]) -> Server:
    """Start a new server from the image, its data in memory and durability off; raise PostgresUnavailable.

    `version` is what the image says of itself; `settings` are further server settings, as `name=value`.
    """
    password = secrets.token_urlsafe(24)
    with _configured(), ExitStack() as stack:
        try:
            container = _container(image, major_version(version), password, settings)
            stack.callback(_remove, container)
            if not config.ryuk_disabled:
                _start_reaper()
            container.start()
            url, version = _wait_until_ready(container, image, password)
        except PostgresUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 (docker, requests and testcontainers each raise their own)
            raise PostgresUnavailable(f"The container of {image} did not start: {error}.") from None
        stack.pop_all()

    def leave() -> str:
        # The reaper would remove the container when this process ends.
        Reaper.delete_instance()
        return f"docker rm -f -v {container.get_wrapped_container().name}"

    stop, describe_death = partial(_remove, container), partial(_describe_death, container)
    return Server(url, version, "docker", stop, leave, describe_death)


def _container(image: str, major: int, password: str, settings: Sequence[str]) -> DockerContainer:
    command = ["postgres", *(word for text in (*TEST_SETTINGS, *settings) for word in ("-c", text))]
    return (
        DockerContainer(image)
        .with_exposed_ports(PORT)
        .with_envs(
            POSTGRES_USER=SUPERUSER,
            POSTGRES_PASSWORD=password,
            POSTGRES_DB=ADMINISTRATIVE_DATABASE,
            POSTGRES_INITDB_ARGS=" ".join(initdb_arguments(major, "linux", temporary=True)),
            # A place that suits every version: images differ in where their volume is.
            PGDATA="/pgtmp/data",
        )
        .with_tmpfs_mount("/pgtmp", "rw")
        .with_command(command)
    )


def _start_reaper() -> None:
    try:
        Reaper.get_instance()
    except Exception as error:  # noqa: BLE001 (docker, requests and testcontainers each raise their own)
        Reaper.delete_instance()
        reason = f"testcontainers' reaper did not start ({last_line(error)})"
        raise PostgresUnavailable(f"{reason}; TESTCONTAINERS_RYUK_DISABLED=true does without it.") from None


def _remove(container: DockerContainer) -> None:
    # An engine that went away took its containers with it.
    with suppress(DockerException, OSError):
        container.stop()


def _wait_until_ready(container: DockerContainer, image: str, password: str) -> tuple[str, str]:
    """Wait for the server over TCP, which the first one, for initialising, does not accept."""

    def find_url() -> str:
        return local_url(container.get_exposed_port(PORT), password, host=container.get_container_host_ip())

    def ended() -> str | None:
        time.sleep(_LOOK_SECONDS)
        container.reload()
        state = container.get_wrapped_container().attrs["State"]
        return f"exit status {state['ExitCode']}" if state["Status"] in ("exited", "dead") else None

    return wait_until_ready(f"The container of {image}", find_url, ended, partial(_log, container))


def _log(container: DockerContainer) -> str:
    log: bytes = container.get_wrapped_container().logs(tail=_LOG_LINES)
    return log.decode(errors="replace")


def _describe_death(container: DockerContainer) -> str | None:
    wrapped = container.get_wrapped_container()
    try:
        wrapped.wait(timeout=NOTICE_SECONDS)
        wrapped.reload()
        state = wrapped.attrs["State"]
        memory = ", out of memory" if state.get("OOMKilled") else ""
        what = f"The PostgreSQL container ended with exit status {state.get('ExitCode')}{memory}"
        return death_line(what, _log(container))
    except NotFound:
        return "The PostgreSQL container was removed."
    except (DockerException, OSError):
        # It still runs, or Docker does not answer any more.
        return None


@contextmanager
def _configured() -> Iterator[None]:
    """Apply TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX to the reaper's image, as server_selection does to the other.

    With a prefix, testcontainers 4.15 does not recognise its own reaper and starts reapers for reapers without end.
    """
    address, _ = engine_address()
    before = config.hub_image_name_prefix, config.ryuk_image
    config.hub_image_name_prefix, config.ryuk_image = "", "".join(before)
    try:
        with environment_for(address):
            yield
    finally:
        config.hub_image_name_prefix, config.ryuk_image = before
