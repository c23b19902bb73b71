"""The container engine that testcontainers uses: where it is, whether it answers, and its images, with deadlines.

Importing docker and testcontainers takes 0.3 s, so nothing here does it until a variable, a file or the usual socket
says that an engine may be there.
"""

import importlib.metadata
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from .libpq import last_line
from .server import PostgresUnavailable

if TYPE_CHECKING:
    from docker import DockerClient

ANSWER_SECONDS = 5.0
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_SOCKET_VARIABLE = "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE"
OLDEST_TESTCONTAINERS = (4, 15)
_LOOK_SECONDS = 15.0
"""For each answer of an engine that answered at all, and may be busy."""
_INSTALL = "pip install --upgrade 'freshpg[docker]'"

_T = TypeVar("_T")


class EngineUnavailable(PostgresUnavailable):
    """No container engine. `address` is where it was looked for, and `named_by` the variable or file that says so."""

    def __init__(self, reason: str, address: str = "", named_by: str = "") -> None:
        super().__init__(f"{reason}.")
        self.address = address
        self.named_by = named_by


def find_engine() -> "DockerClient":
    """Return a client of the engine that testcontainers will use, to be closed after use; raise EngineUnavailable."""
    _check_testcontainers()
    address, named_by, detail = DEFAULT_SOCKET, "", ""
    try:
        if _may_be_named():
            address, named_by = engine_address()
        if address.startswith("unix://"):
            _look_at_socket(address.removeprefix("unix://"))
        # Not within the deadline: it takes a second or two on a busy machine.
        from testcontainers.core.docker_client import DockerClient as Wrapper

        with environment_for(address):
            # A new client asks for the engine's version. docker-py's own timeout holds for each step, and not for SSH.
            return within(ANSWER_SECONDS, lambda: Wrapper(timeout=_LOOK_SECONDS).client, "asking Docker")
    except EngineUnavailable:
        raise
    except PermissionError:
        reason = "this user may not open Docker's socket"
    except (ImportError, RuntimeError, ValueError) as error:
        # A variable TC_* or TESTCONTAINERS_* that it cannot read as it is imported, a malformed address, no home.
        reason, detail = "testcontainers cannot use its settings or Docker's address", f": {error}"
    except Exception:  # noqa: BLE001 (docker, requests and urllib3 each raise their own)
        reason = "Docker does not answer at"
    # Without the user and password of a login.
    shown = re.sub(r"//[^/\s]*@", "//", address) + (f" ({named_by})" if named_by else "")
    raise EngineUnavailable(f"{reason} {shown}{detail}", address, named_by)


def engine_address() -> tuple[str, str]:
    """Return the address of the engine that testcontainers uses, and what names it (empty for the usual socket)."""
    from docker.context import ContextAPI
    from docker.context.config import get_current_context_name
    from testcontainers.core.config import testcontainers_config as config
    from testcontainers.core.docker_client import get_docker_host

    if address := get_docker_host():
        if config.tc_properties_get_tc_host():
            return address, "tc.host in ~/.testcontainers.properties"
        return address, "DOCKER_HOST" if os.environ.get("DOCKER_HOST") else "Docker's current context"
    context = os.environ.get("DOCKER_CONTEXT", "")
    if ContextAPI.get_context(context) is None:
        raise EngineUnavailable(f"there is no Docker context {context or get_current_context_name()!r}")
    # testcontainers leaves the rest to docker-py, which from 7.2 on reads DOCKER_CONTEXT.
    from_context: dict[str, Any] = getattr(ContextAPI, "kwargs_from_context", dict)()
    named_by = "DOCKER_CONTEXT" if from_context and context else ""
    return from_context.get("base_url", DEFAULT_SOCKET), named_by


@contextmanager
def environment_for(address: str) -> Iterator[None]:
    """Prepare the environment for testcontainers; undo that and what it writes there, for other programs' sake."""
    before = {name: os.environ.get(name) for name in ("DOCKER_HOST", "no_proxy", _SOCKET_VARIABLE)}
    host = urlsplit(address).hostname
    if address.startswith("unix://"):
        # testcontainers would find it with a client that it does not close.
        os.environ.setdefault(_SOCKET_VARIABLE, address.removeprefix("unix://"))
    elif host in ("127.0.0.1", "::1", "localhost"):
        # docker-py, unlike the docker command, would ask a proxy the way to this machine.
        known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        os.environ["no_proxy"] = f"{known},{host}" if known else host
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


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
    from testcontainers.core.config import testcontainers_config as config

    return [image] if config.ryuk_disabled else [image, config.hub_image_name_prefix + config.ryuk_image]


def pull_images(image: str, seconds: float) -> dict[str, str]:
    """Pull the image, and that of testcontainers' reaper, unless the engine has them; announce it on stderr.

    Returns the image's environment variables. Raises PostgresUnavailable if a pull fails or takes more than `seconds`.
    """
    with closing(find_engine()) as client:
        from docker.errors import DockerException, ImageNotFound

        def have(name: str) -> dict[str, Any]:
            try:
                with suppress(ImageNotFound):
                    return client.images.get(name).attrs  # type: ignore[no-any-return] # docker-py has no types
                print(f"Pulling {name} (at most {seconds:g} s) ...", file=sys.stderr, flush=True)  # noqa: T201  for a person
                return within(seconds, lambda: client.images.pull(name).attrs, f"pulling {name}")
            except (DockerException, OSError) as error:
                reason = f"the image {name} is not here and cannot be pulled ({last_line(error)})"
                raise PostgresUnavailable(f"{reason}.") from None

        found = [have(name) for name in needed_images(image)]
        variables = found[0]["Config"].get("Env") or []
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


def _may_be_named() -> bool:
    """Tell whether a variable or file may name an engine; if none does, it is at the usual socket."""
    variables = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")
    files = map(os.path.expanduser, ("~/.docker/config.json", "~/.testcontainers.properties"))
    return any(map(os.environ.get, variables)) or any(map(os.path.exists, files))
