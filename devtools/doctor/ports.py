"""Who holds a port that the API or Compose's database is to have."""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.doctor import settings
from devtools.doctor.command import NotThereError
from devtools.doctor.finding import Finding, ok, warning, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devtools.doctor.checkout import Checkout
    from devtools.doctor.engine import Docker

PORTS = {"ports/API_PORT": ("API_PORT", "api"), "ports/DB_PORT": ("DB_PORT", "db")}
LOOPBACK = "127.0.0.1"
LARGEST = 65535
PROC = Path("/proc")
"""Where Linux tells of processes; elsewhere lsof and ps do."""
_LABELS = "\t".join(
    f'{{{{.Label "com.docker.compose.{name}"}}}}' for name in ("project", "service", "project.working_dir")
)
_LISTENS = "0A"


@dataclass(frozen=True)
class Holder:
    """Who listens on a port."""

    what: str
    """In a person's words, with what it takes to find it; never a whole command line."""
    is_ours: bool = False
    """Whether it is of this checkout."""
    service: str = ""
    """Its name with Compose, if it is one of Compose's."""
    cure: str = "Stop it"


def check(checkout: Checkout, ask: Callable[[], Docker]) -> list[Finding]:
    read = settings.read(checkout)
    return [_check(name, checkout, read, ask()) for name in PORTS]


def _check(name: str, checkout: Checkout, read: settings.Settings, docker: Docker) -> Finding:
    setting, service = PORTS[name]
    text = read.python(setting) or checkout.defaults.get(setting, "")
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LARGEST):
        return wrong(name, f"{setting} is no port.", f"Set it to a number from 1 to {LARGEST}.")
    port = int(text)
    holder = holder_of(port, checkout, docker)
    if holder is None:
        if refusal := _refusal(port):
            return warning(name, f"{port} cannot be had: {refusal}.", f"Set {_another(setting, port)}.")
        return ok(name, f"{port} is free.")
    if holder.is_ours and service in ("api", holder.service):
        return ok(name, f"{port} is held by {holder.what}, of this checkout.")
    return wrong(
        name, f"{port} is held by {holder.what}.", f"{holder.cure}, or set {_another(setting, port)}."
    )


def _another(setting: str, port: int) -> str:
    others = range(port + 1, min(port + 50, LARGEST))
    free = next((each for each in others if not (_is_held(each) or _bind_error(each))), None)
    return f"{setting}='{free}' in .env" if free else f"{setting} in .env to another"


def holder_of(port: int, checkout: Checkout, docker: Docker) -> Holder | None:
    """Return who listens on this port of loopback; None where nobody does."""
    # First those that Docker knows, for they are held by its proxy, or by nobody where the kernel forwards.
    if docker.answers and docker.has_command and (container := _container(port, checkout)):
        return container
    if not _is_held(port):
        return None
    return _process(port, checkout) or Holder("a program that this user may not look at")


def _is_held(port: int) -> bool:
    if _bind_error(port) == errno.EADDRINUSE:
        return not _knows_listeners() or any(_listeners(port))
    # Elsewhere than on Linux one may bind to loopback beside a program that listens on every address.
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _bind_error(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return error.errno or -1
    return 0


def _refusal(port: int) -> str:
    number = _bind_error(port)
    if number == errno.EADDRINUSE:
        return "a connection that was made here has it for its own end, and may for a minute after that"
    return os.strerror(number).lower() if number > 0 else ""


def _container(port: int, checkout: Checkout) -> Holder | None:
    with suppress(NotThereError):
        form = f"{{{{.Names}}}}\t{_LABELS}"
        said = checkout.run("docker", "ps", "--filter", f"publish={port}", "--format", form)
        for line in said.out.splitlines():
            name, project, service, place = line.split("\t")
            what = f"Compose's {service} (container {name})" if service else f"the container {name}"
            if place and checkout.is_at(place):
                return Holder(what, is_ours=True, service=service, cure="`docker compose down`")
            stop = f"`docker stop {name}`"
            return Holder(f"{what} of the project {project} in {place}" if project else what, cure=stop)
    return None


def _process(port: int, checkout: Checkout) -> Holder | None:
    """Return whose process it is; of several, as a server has that forks, one that is known to be of the checkout."""
    has_proc = _knows_listeners()
    holders = []
    for pid in sorted(_by_proc(port) if has_proc else _by_lsof(port, checkout)):
        place, words = _read_proc(pid) if has_proc else _ask_ps(pid, checkout)
        command = _command(words)
        ours = Path(place).is_relative_to(checkout.root.resolve()) and "backend." in command
        holders.append(Holder(f"{command} (process {pid})", is_ours=ours, cure=f"Stop it (`kill {pid}`)"))
    if not holders:
        return _of_another_user(port)
    return next((holder for holder in holders if holder.is_ours), holders[0])


def _knows_listeners() -> bool:
    return (PROC / "net" / "tcp").exists()


def _listeners(port: int) -> Iterator[tuple[str, str]]:
    """Give the uid and the inode of each socket that listens on this port, on Linux."""
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / name).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[7], fields[9]


def _by_proc(port: int) -> Iterator[int]:
    wanted = {f"socket:[{inode}]" for _, inode in _listeners(port)}
    for process in PROC.glob("[0-9]*"):
        # One that is gone meanwhile, or another user's.
        with suppress(OSError):
            if any(_leads_to(each, wanted) for each in (process / "fd").iterdir()):
                yield int(process.name)


def _leads_to(link: Path, wanted: set[str]) -> bool:
    with suppress(OSError):
        return str(link.readlink()) in wanted
    return False


def _by_lsof(port: int, checkout: Checkout) -> Iterator[int]:
    with suppress(NotThereError):
        said = checkout.run("lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp")
        yield from (int(number) for number in re.findall(r"^p(\d+)$", said.out, re.MULTILINE))


def _of_another_user(port: int) -> Holder | None:
    for uid, _ in _listeners(port):
        return Holder(f"a program of another user (uid {uid})", cure="Have it stopped")
    return None


def _read_proc(pid: int) -> tuple[str, list[str]]:
    """Return where a process is, and the words of its command."""
    with suppress(OSError):
        place = str((PROC / str(pid) / "cwd").readlink())
        return place, (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return "", []


def _ask_ps(pid: int, checkout: Checkout) -> tuple[str, list[str]]:
    """Do as `_read_proc` where there is no /proc."""
    with suppress(NotThereError):
        place = checkout.run("lsof", "-a", "-p", str(pid), "-d", "cwd", "-Fn").out
        words = checkout.run("ps", "-o", "command=", "-p", str(pid)).out.split()
        return place.rpartition("\nn")[2].strip(), words
    return "", []


def _command(words: list[str]) -> str:
    """Name a program: its file, and the module or script of a Python. What else it was given may be secret."""
    program = os.path.basename(words[0].split(" ")[0]) if words and words[0] else "a program"  # noqa: PTH119
    if not program.startswith("python"):
        return program
    rest = words[1:]
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
        rest = rest[2 if rest[0] in ("-W", "-X") else 1 :]
    if len(rest) > 1 and rest[0] == "-m":
        return f"{program} -m {rest[1]}"
    return f"{program} {os.path.basename(rest[0])}" if rest and rest[0] and rest[0][0] != "-" else program  # noqa: PTH119
