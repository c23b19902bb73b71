"""The container engine that testcontainers uses: where it is, whether it answers, and its images, with deadlines.

Importing docker and testcontainers takes 0.3 s, so nothing here does it until a cheap look says that an engine may be
there.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import socket
import sys
import threading
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from .server import PostgresUnavailable, last_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import DockerClient  # type: ignore[import-untyped] # it has no types

ANSWER_SECONDS = 5.0
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
OLDEST_TESTCONTAINERS = (4, 15)
_LOOK_SECONDS = 15.0
"""For an engine that answered already, and may be busy."""
_INSTALL = "pip install --upgrade 'freshpg[docker]'"

_T = TypeVar("_T")


class EngineUnavailable(PostgresUnavailable):
    """No container engine. `address` is where it was looked for, and `named_by` the variable or file that says so."""

    def __init__(self, reason: str, address: str = "", named_by: str = "") -> None:
        super().__init__(f"{reason}.")
        self.address = address
        self.named_by = named_by


def find_engine() -> DockerClient:
    """Return a client of the engine that testcontainers will use, to be closed after use; raise EngineUnavailable."""
    _check_testcontainers()
    address, named_by = engine_address()
    # Without the user and password of a login.
    shown = re.sub(r"//[^/\s]*@", "//", address) + (f" ({named_by})" if named_by else "")
    try:
        _go_direct_to_loopback(address)
        if address.startswith("unix://"):
            _look_at_socket(address.removeprefix("unix://"))
        # Not within the deadline: it takes a second or two on a busy machine.
        from testcontainers.core.docker_client import DockerClient as Wrapper  # noqa: PLC0415 (slow)

        def connect() -> DockerClient:
            client = Wrapper(timeout=ANSWER_SECONDS).client
            client.ping()
            return client

        before = os.environ.get("DOCKER_HOST")
        try:
            return within(ANSWER_SECONDS, connect, "asking Docker")
        finally:
            # testcontainers writes there what it found elsewhere, which is not for other programs.
            os.environ.pop("DOCKER_HOST", None)
            os.environ.update({} if before is None else {"DOCKER_HOST": before})
    except PermissionError:
        reason = f"this user may not open Docker's socket {shown}"
    except (ImportError, RuntimeError, ValueError) as error:
        # A variable TC_* or TESTCONTAINERS_* that it cannot read as it is imported, a malformed address, no home.
        reason = f"testcontainers cannot use its settings or Docker's address {shown}: {error}"
    except Exception:  # noqa: BLE001 (docker, requests and urllib3 each raise their own)
        reason = f"Docker does not answer at {shown}"
    raise EngineUnavailable(reason, address, named_by)


def engine_address() -> tuple[str, str]:
    """Return the address of the engine, and the variable or file that names it (empty for the usual socket).

    It is looked for as testcontainers does: `tc.host` in ~/.testcontainers.properties, DOCKER_HOST, the docker
    command's context, the usual socket.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (Path's raises without a home)
    properties = home / ".testcontainers.properties"
    with suppress(OSError, UnicodeDecodeError):
        # The last one counts, as it does for testcontainers.
        if hosts := re.findall(
            r"^[ \t]*tc\.host[ \t]*=[ \t]*([^=\s]+)", properties.read_text("utf-8"), re.MULTILINE
        ):
            return hosts[-1], f"tc.host in {properties}"
    if host := os.environ.get("DOCKER_HOST", ""):
        return host, "DOCKER_HOST"
    context, named_by = os.environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
    if not context:
        config = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
        with suppress(OSError, ValueError, AttributeError):
            context, named_by = json.loads(config.read_text("utf-8")).get("currentContext") or "", str(config)
    if context in ("", "default"):
        return DEFAULT_SOCKET, ""
    from docker.context import ContextAPI  # type: ignore[import-untyped] # noqa: PLC0415 (slow, and rarely needed)

    found = ContextAPI.get_context(context)
    if found is None:
        reason = f"there is no Docker context {context!r}, which {named_by} names"
        raise EngineUnavailable(reason, named_by=named_by)
    return str(found.Host or DEFAULT_SOCKET), f"the Docker context {context}"


def within(seconds: float, work: Callable[[], _T], what: str) -> _T:
    """Return what `work` returns; raise TimeoutError, naming `what`, if that takes longer."""
    future: Future[_T] = Future()

    def attempt() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            future.set_exception(error)

    # A daemon, unlike an executor's: one that hangs on a socket holds nobody up at the end of the process.
    threading.Thread(target=attempt, daemon=True, name=what).start()
    wait([future], seconds)
    if not future.done():
        raise TimeoutError(f"{what} took longer than {seconds:g} s")
    return future.result()


def needed_images(image: str) -> list[str]:
    """Return the image and that of testcontainers' reaper, if it is to be used."""
    from testcontainers.core.config import testcontainers_config as config  # noqa: PLC0415 (slow)

    return [image] if config.ryuk_disabled else [image, config.hub_image_name_prefix + config.ryuk_image]


def pull_images(image: str, seconds: float) -> dict[str, str]:
    """Pull the image, and that of testcontainers' reaper, unless the engine has them; announce it on stderr.

    Returns the image's environment variables. Raises PostgresUnavailable if a pull fails or takes longer than this.
    """
    with closing(find_engine()) as client:
        from docker.errors import (  # type: ignore[import-untyped] # it has no types # noqa: PLC0415 (slow, and loaded by now)
            DockerException,
            ImageNotFound,
        )

        client.api.timeout = _LOOK_SECONDS

        def have(name: str) -> dict[str, Any]:
            try:
                with suppress(ImageNotFound):
                    return client.images.get(name).attrs  # type: ignore[no-any-return] # docker-py has no types
                print(f"Pulling {name} (at most {seconds:g} s) ...", file=sys.stderr, flush=True)  # noqa: T201  for a person
                return within(seconds, lambda: client.images.pull(name).attrs, f"pulling {name}")
            except TimeoutError as error:
                raise PostgresUnavailable(f"{error}.") from None
            except (DockerException, OSError) as error:
                reason = f"the image {name} is not here and cannot be pulled ({last_line(error)})"
                raise PostgresUnavailable(f"{reason}.") from None

        variables = have(image)["Config"].get("Env") or []
        for other in needed_images(image)[1:]:
            have(other)
        return dict(variable.split("=", 1) for variable in variables if "=" in variable)


def _look_at_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_SECONDS)
        probe.connect(path)
        # docker-py would leave its socket open if no answer came.
        probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        if not probe.recv(1):
            raise ConnectionError


def _check_testcontainers() -> None:
    try:
        version = importlib.metadata.version("testcontainers")
    except importlib.metadata.PackageNotFoundError:
        raise EngineUnavailable(f"the Python package testcontainers is not installed ({_INSTALL})") from None
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_TESTCONTAINERS:
        oldest = ".".join(map(str, OLDEST_TESTCONTAINERS))
        raise EngineUnavailable(
            f"testcontainers {version} is too old, {oldest} or later is needed ({_INSTALL})"
        )


def _go_direct_to_loopback(address: str) -> None:
    """Ask no proxy the way to an engine on this machine; docker-py, unlike the docker command, would."""
    host = urlsplit(address).hostname
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if host in ("127.0.0.1", "::1", "localhost") and host not in known.split(","):
        os.environ["no_proxy"] = f"{known},{host}" if known else host
