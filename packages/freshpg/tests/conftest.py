import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from freshpg import Server, start_ephemeral


@pytest.fixture(scope="session")
def embedded() -> Iterator[Server]:
    """Return a server on which a test may make roles, whatever server the run itself uses."""
    with start_ephemeral() as server:
        yield server


@pytest.fixture
def reachable() -> Iterator[Path]:
    """Return a directory that every account can enter, in which programs may run: tmp_path is this user's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def kept(reachable: Path) -> Iterator[Path]:
    """Return such a directory for data, in memory where there is room, for durable servers are slow on disks."""
    memory = Path("/dev/shm")  # noqa: S108 (what is made there has a random name)
    if not memory.is_dir() or shutil.disk_usage(memory).free < 512 * 1024 * 1024:
        yield reachable
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        Path(name).chmod(0o755)
        yield Path(name)
