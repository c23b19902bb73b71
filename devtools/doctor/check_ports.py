"""Check the ports of the API and of Compose's database: whether they are free, or which process uses them."""

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from backend.config import load_settings
from devtools.database import is_listening
from devtools.doctor.docker_cli import Machine
from devtools.doctor.finding import Finding, ok, where, wrong

_LABELS = '{{.Label "com.docker.compose.service"}}\t{{.Label "com.docker.compose.project.working_dir"}}'


@dataclass(frozen=True)
class Holder:
    what: str
    """A description to find it by. It is never a complete command line, which may contain a secret."""
    stop: str
    service: str = ""
    """The service of this checkout that it is, `api` or `db`; empty if it is something else."""


def check(machine: Machine) -> Iterator[Finding]:
    settings = load_settings()
    yield check_port(machine, "API_PORT", settings.api_port, "api")
    yield check_port(machine, "DB_PORT", settings.db_port, "db")


def check_port(machine: Machine, name: str, port: int, service: str) -> Finding:
    """Check the port of a service of this checkout, `api` or `db`."""
    holder = _container(machine, port)
    if holder is None and is_free(port):
        return ok(name, f"{port} is free.")
    if holder is None and not is_listening(port):
        holder = Holder("a client's connection", "Try again in a minute")
    holder = (
        holder or _process(machine, port) or Holder("a process of another user", "Ask that user to stop it")
    )
    if holder.service == service:
        return ok(name, f"{port} is in use by {holder.what}, of this checkout.")
    free = next(filter(is_free, range(port + 1, 65536)), port)
    cure = f"{holder.stop}, or set {name}='{free}' in {where(name)}."
    return wrong(name, f"{port} is in use by {holder.what}.", cure)


def is_free(port: int) -> bool:
    """Return whether a server can bind the port; a client's connection can prevent that, although nothing listens."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError as error:
            # This user may be refused a port that Docker can have.
            return error.errno != errno.EADDRINUSE and not is_listening(port)
    return not is_listening(port)


def _container(machine: Machine, port: int) -> Holder | None:
    """Return the container that publishes a port; the process that listens on it is Docker's own."""
    if not machine.docker.answers:
        return None
    form = "{{.Names}}\t" + _LABELS
    listed = machine.run("docker", "ps", "--filter", f"publish={port}", "--format", form)
    for line in listed.stdout.splitlines():
        name, service, place = line.split("\t")
        if place and machine.is_here(place):
            return Holder(f"Compose's {service} (container {name})", "`docker compose down`", service)
        return Holder(f"the container {name}{place and f' of {place}'}", f"`docker stop {name}`")
    return None


def _process(machine: Machine, port: int) -> Holder | None:
    """Return the process that listens on a port, unless it is another user's."""
    # Not psutil.net_connections(), which only root may use on macOS.
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found = process.net_connections("tcp")
            if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found):
                return _describe(machine, process)
    return None


def _describe(machine: Machine, process: psutil.Process) -> Holder:
    """Describe a process; for a worker of this checkout's API, describe the process that started it."""
    for each in (process, *process.parents()):
        words = each.cmdline()
        module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
        is_ours = module == "devtools.dev" or module.startswith("backend.")
        if is_ours and Path(each.cwd()).is_relative_to(machine.root.resolve()):
            return Holder(f"python -m {module} (process {each.pid})", f"Stop it (`kill {each.pid}`)", "api")
    name, words = process.name(), process.cmdline()
    if name.startswith("python") and words[1:] and not words[1].startswith("-"):
        name = f"{name} {Path(words[1]).name}"
    return Holder(f"{name} (process {process.pid})", f"Stop it (`kill {process.pid}`)")
