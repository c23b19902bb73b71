"""Check the free space for the checkout, for Docker and in memory."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from devtools.doctor.docker_cli import Machine
from devtools.doctor.finding import Finding, ok, warning, wrong

MEMORY = Path("/dev/shm")  # noqa: S108  where the tests' embedded servers keep their data, on Linux
_MAKE_ROOM = (
    "Make room: `docker system df` and `docker builder prune` for Docker, `du -sh ~/.cache` for caches."
)


def check(machine: Machine) -> Iterator[Finding]:
    yield space("checkout", "for the checkout", machine.root, least=200, enough=1000)
    place = Path(machine.docker.info.get("DockerRootDir") or "/nonexistent")
    if machine.docker.socket and place.is_dir():
        yield space("docker", "for Docker's images and volumes", place, least=500, enough=3000)
    if MEMORY.is_dir():
        yield space("memory", "for the data of embedded test servers", MEMORY, least=0, enough=512)


def space(name: str, purpose: str, place: Path, *, least: int, enough: int) -> Finding:
    """Check the free space, in megabytes: less than `enough` is a warning, less than `least` is wrong."""
    free = shutil.disk_usage(place).free // 1024**2
    finding = f"{free / 1024:.1f} GB free {purpose}, at {place}."
    if free < enough:
        return (wrong if free < least else warning)(name, f"Only {finding}", _MAKE_ROOM)
    return ok(name, finding)
