import signal
from collections.abc import Iterator

import pytest

from freshpg import Server, start_ephemeral


def pytest_configure() -> None:
    # A shell makes background processes ignore SIGINT, and their children inherit that; some tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded() -> Iterator[Server]:
    """Return a server on which a test may make roles, whatever server the run itself uses."""
    with start_ephemeral() as server:
        yield server
