from collections.abc import Iterator

import pytest

from freshpg import Server, start_ephemeral


@pytest.fixture(scope="session")
def embedded() -> Iterator[Server]:
    """Return a server on which a test may make roles, whatever server the run itself uses."""
    with start_ephemeral() as server:
        yield server
