import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.devtools.postgres import Server, start_ephemeral


@pytest.fixture(scope="session")
def embedded() -> Iterator[Server]:
    """Return a server on which a test may make roles, whatever server the run itself uses."""
    with start_ephemeral() as server:
        yield server


@pytest.fixture
def reachable() -> Iterator[Path]:
    """Return a directory that every account can enter, in memory where there is some: tmp_path is this user's alone."""
    memory = Path("/dev/shm")  # noqa: S108 (what is made there has a random name)
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        Path(name).chmod(0o755)
        yield Path(name)
