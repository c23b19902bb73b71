"""Ask a container engine, with deadlines, whether it answers and has an image.

Importing docker costs 150 ms, so nothing here does it until a cheap look says that an engine may be there.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from .server import PostgresUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import DockerClient  # type: ignore[import-untyped] # it has no types

ANSWER_SECONDS = 5.0
LOOK_SECONDS = 15.0
"""For an engine that answered already, and may be busy."""
DEFAULT_SOCKET = "unix:///var/run/docker.sock"

_T = TypeVar("_T")


def within(seconds: float, work: Callable[[], _T], what: str) -> _T:
    """Return what `work` returns; raise TimeoutError, naming `what`, if that takes longer.

    The thread that is left behind then is a daemon: a socket that hangs holds nobody up.
    """
    result: list[_T] = []
    failure: list[BaseException] = []

    def attempt() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 (raised again below, in the caller's thread)
            failure.append(error)

    thread = threading.Thread(target=attempt, daemon=True, name=what)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not result:
        raise TimeoutError(f"{what} took longer than {seconds:g} s")
    return result[0]


def engine_address() -> str:
    """Return where the engine is looked for: DOCKER_HOST, the docker command's context, or the usual socket."""
    named = os.environ.get("DOCKER_HOST", "").strip()
    if named:
        return named
    config = os.path.expanduser(os.environ.get("DOCKER_CONFIG", "~/.docker"))  # noqa: PTH111 (as docker does)
    if os.environ.get("DOCKER_CONTEXT") or os.path.exists(os.path.join(config, "contexts")):  # noqa: PTH110, PTH118
        from docker.context import ContextAPI  # type: ignore[import-untyped] # noqa: PLC0415 (slow, rarely needed)

        context = ContextAPI.get_current_context()
        if context is not None and context.Name != "default" and context.Host:
            return str(context.Host)
    return DEFAULT_SOCKET


def shown(address: str) -> str:
    """Return an engine's address without who logs in there, and by what password."""
    return re.sub(r"//[^/\s]*@", "//", address)


def connect_to_engine() -> DockerClient:
    """Return a client of an engine that has just answered.

    Raises PostgresUnavailable, saying where it was looked for, where none answers within ANSWER_SECONDS.
    """
    address = engine_address()
    if address.startswith("unix://"):
        _look_at_socket(address)
    try:
        import docker  # noqa: PLC0415 (see above)
        from docker.errors import DockerException  # type: ignore[import-untyped] # noqa: PLC0415
    except ImportError:
        raise PostgresUnavailable("the Python package testcontainers is not installed") from None

    def ask() -> DockerClient:
        environment = dict(os.environ) | {"DOCKER_HOST": address}
        client = docker.from_env(timeout=ANSWER_SECONDS, environment=environment)
        client.ping()
        return client

    try:
        return within(ANSWER_SECONDS, ask, "asking Docker")
    except ValueError:
        raise PostgresUnavailable(f"Docker's address {shown(address)} cannot be understood") from None
    except (DockerException, TimeoutError, OSError):
        raise PostgresUnavailable(f"Docker does not answer at {shown(address)}") from None


def _look_at_socket(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_SECONDS)
        try:
            probe.connect(address.removeprefix("unix://"))
        except PermissionError:
            raise PostgresUnavailable(f"Docker's socket {address} may not be opened by this user") from None
        except OSError:
            raise PostgresUnavailable(f"Docker does not answer at {address}") from None


def have_image(client: DockerClient, image: str, seconds: float) -> dict[str, str]:
    """Make sure that the engine has the image, pulling it if need be; return the image's environment.

    A pull is announced on stderr before it begins. Raises PostgresUnavailable where it fails or takes longer than this.
    """
    from docker.errors import DockerException, ImageNotFound  # noqa: PLC0415 (the client exists, so it is loaded)

    # Each read has its own deadline, which so far was the one for a first answer.
    client.api.timeout = max(seconds, LOOK_SECONDS)

    def look() -> dict[str, str]:
        attributes: dict[str, Any] = client.images.get(image).attrs
        entries = attributes["Config"].get("Env") or []
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)

    def pull() -> None:
        repository, tag = _split(image)
        for event in client.api.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in event:
                raise DockerException(str(event["error"]))

    try:
        try:
            return within(LOOK_SECONDS, look, f"looking for the image {image}")
        except ImageNotFound:
            print(f"Pulling {image} (at most {seconds:g} s) ...", file=sys.stderr, flush=True)  # noqa: T201  for a person
        started = time.monotonic()
        within(seconds, pull, f"pulling {image}")
        spent = time.monotonic() - started
        print(f"Pulled {image} in {spent:.0f} s.", file=sys.stderr, flush=True)  # noqa: T201  for a person
        return within(LOOK_SECONDS, look, f"looking for the image {image}")
    except TimeoutError as error:
        raise PostgresUnavailable(f"{error}") from None
    except (DockerException, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PostgresUnavailable(f"the image {image} is not there and cannot be pulled ({first})") from None


def _split(image: str) -> tuple[str, str | None]:
    """Split a reference into repository and tag, minding ports and digests."""
    if "@" in image:
        return image, None
    repository, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        return image, "latest"
    return repository, tag
