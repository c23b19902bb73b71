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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from .server import PostgresUnavailable, restore_variable

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import DockerClient  # type: ignore[import-untyped] # it has no types
    from testcontainers.core.docker_client import DockerClient as Wrapper

ANSWER_SECONDS = 5.0
LOOK_SECONDS = 15.0
"""For an engine that answered already, and may be busy."""
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
OLDEST_TESTCONTAINERS = (4, 15)
_INSTALL = "pip install --upgrade 'freshpg[docker]'"

Problem = Literal["no answer", "no permission", "no context", "not installed", "too old", "bad settings"]

_T = TypeVar("_T")


class EngineUnavailable(PostgresUnavailable):
    """No container engine. `problem` is its kind, `address` where it was looked for, `named_by` what says so."""

    def __init__(self, reason: str, problem: Problem, address: str = "", named_by: str = "") -> None:
        super().__init__(f"{reason}.", reason=reason)
        self.problem = problem
        self.address = address
        self.named_by = named_by


@dataclass(frozen=True)
class Engine:
    """A container engine that answers."""

    client: DockerClient
    """docker-py's client; `close` it after use."""
    address: str
    named_by: str
    """A variable or a file that names the address; empty for the usual socket."""


def find_engine() -> Engine:
    """Return the engine that testcontainers will use; raise EngineUnavailable.

    It is looked for as testcontainers does: `tc.host` in ~/.testcontainers.properties, DOCKER_HOST, the docker
    command's context, the usual socket.
    """
    _check_testcontainers()
    address, named_by = engine_address()
    # As the docker command does, and docker-py does not: a proxy never leads to this machine.
    _go_direct_to_loopback(address)
    if address.startswith("unix://"):
        _look_at_socket(address, named_by)
    try:
        # Not within the deadline: it takes a second or two on a busy machine.
        from testcontainers.core.docker_client import DockerClient as Wrapper  # noqa: PLC0415 (see above)

        client = within(ANSWER_SECONDS, lambda: _connect(Wrapper), "asking Docker")
    except (ImportError, RuntimeError, ValueError) as error:
        # A variable TC_* or TESTCONTAINERS_* that it cannot read as it is imported, a malformed address, no home.
        reason = (
            f"testcontainers cannot use its settings or Docker's address {_shown(address, named_by)}: {error}"
        )
        raise EngineUnavailable(reason, "bad settings", address, named_by) from None
    except Exception:  # noqa: BLE001 (docker, requests and urllib3 each raise their own)
        raise _no_answer(address, named_by) from None
    return Engine(client, address, named_by)


def engine_address() -> tuple[str, str]:
    """Return the address of the engine, and the variable or file that names it (empty for the usual socket)."""
    properties = Path(os.path.expanduser("~/.testcontainers.properties"))  # noqa: PTH111 (Path's raises without a home)
    if host := _property(properties, "tc.host"):
        return host, f"tc.host in {properties}"
    if host := os.environ.get("DOCKER_HOST", ""):
        return host, "DOCKER_HOST"
    context, named_by = _context()
    if context in ("", "default"):
        return DEFAULT_SOCKET, ""
    from docker.context import ContextAPI  # type: ignore[import-untyped] # noqa: PLC0415 (slow, and rarely needed)

    found = ContextAPI.get_context(context)
    if found is None:
        reason = f"there is no Docker context {context!r}, which {named_by} names"
        raise EngineUnavailable(reason, "no context", named_by=named_by)
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


def have_image(image: str, seconds: float) -> dict[str, str]:
    """Make sure that the engine has the image, pulling it if need be; return the image's environment variables.

    A pull is announced on stderr. Raises PostgresUnavailable if it fails or takes longer than this.
    """
    client = find_engine().client
    from docker.errors import (  # type: ignore[import-untyped] # noqa: PLC0415 (the client exists, so it is loaded)
        DockerException,
        ImageNotFound,
    )

    def look() -> dict[str, str]:
        entries = client.images.get(image).attrs["Config"].get("Env") or []
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)

    def pull() -> None:
        for event in client.api.pull(image, stream=True, decode=True):
            if "error" in event:
                raise DockerException(str(event["error"]))

    # Each read has this deadline.
    client.api.timeout = max(seconds, LOOK_SECONDS)
    try:
        with suppress(ImageNotFound):
            return within(LOOK_SECONDS, look, f"looking for the image {image}")
        print(f"Pulling {image} (at most {seconds:g} s) ...", file=sys.stderr, flush=True)  # noqa: T201  for a person
        within(seconds, pull, f"pulling {image}")
        return within(LOOK_SECONDS, look, f"looking for the image {image}")
    except TimeoutError as error:
        reason = str(error)
    except (DockerException, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = f"the image {image} is not here and cannot be pulled ({first})"
    finally:
        client.close()
    raise PostgresUnavailable(f"{reason}.", reason=reason)


def _connect(wrapper: type[Wrapper]) -> DockerClient:
    before = os.environ.get("DOCKER_HOST")
    try:
        client = wrapper(timeout=ANSWER_SECONDS).client
    finally:
        # It writes there what it found elsewhere, which is not for other programs if the engine does not answer.
        restore_variable("DOCKER_HOST", before)
    client.ping()
    return client


def _no_answer(address: str, named_by: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"Docker does not answer at {_shown(address, named_by)}", "no answer", address, named_by
    )


def _shown(address: str, named_by: str) -> str:
    """Return an engine's address without the user and password of a login, and what names it."""
    return re.sub(r"//[^/\s]*@", "//", address) + (f" ({named_by})" if named_by else "")


def _look_at_socket(address: str, named_by: str) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_SECONDS)
        try:
            probe.connect(address.removeprefix("unix://"))
            # docker-py would leave its socket open if no answer came.
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            if not probe.recv(1):
                raise _no_answer(address, named_by)
        except PermissionError:
            reason = f"this user may not open Docker's socket {_shown(address, named_by)}"
            raise EngineUnavailable(reason, "no permission", address, named_by) from None
        except OSError:
            raise _no_answer(address, named_by) from None


def _check_testcontainers() -> None:
    try:
        version = importlib.metadata.version("testcontainers")
    except importlib.metadata.PackageNotFoundError:
        reason = f"the Python package testcontainers is not installed ({_INSTALL})"
        raise EngineUnavailable(reason, "not installed") from None
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_TESTCONTAINERS:
        oldest = ".".join(map(str, OLDEST_TESTCONTAINERS))
        reason = f"testcontainers {version} is too old, {oldest} or later is needed ({_INSTALL})"
        raise EngineUnavailable(reason, "too old")


def _context() -> tuple[str, str]:
    """Return the name of the docker command's context, and what names it."""
    if name := os.environ.get("DOCKER_CONTEXT", ""):
        return name, "DOCKER_CONTEXT"
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111 (see above)
    config = Path(directory) / "config.json"
    with suppress(OSError, ValueError, AttributeError):
        return str(json.loads(config.read_text(encoding="utf-8")).get("currentContext", "")), str(config)
    return "", ""


def _property(file: Path, name: str) -> str:
    """Return a value of a properties file, read as testcontainers reads it: the last one counts."""
    with suppress(OSError, UnicodeDecodeError):
        pairs = (line.split("=") for line in file.read_text(encoding="utf-8").splitlines() if "=" in line)
        return {pair[0].strip(): pair[1].strip() for pair in pairs}.get(name, "")
    return ""


def _go_direct_to_loopback(address: str) -> None:
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if host in ("127.0.0.1", "::1", "localhost") and host not in known.split(","):
        os.environ["no_proxy"] = f"{known},{host}" if known else host
