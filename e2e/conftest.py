"""What the end-to-end tests stand on: fresh checkouts that leave nothing behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from .checkout import Checkout, copy_checkout

# Two halves take about as long. Nearly all containers of the first have Compose's label, by which the other leaves them
# out where it counts its own.
CHECKOUTS = (
    "test_commits.py",
    "test_compose.py",
    "test_devcontainer.py",
    "test_images.py",
    "test_readme.py::test_both_commands_work_without_docker",
    "test_upgrade.py",
)


class Halves(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Give each of two workers its half, file by file: what a file's tests share is made once."""

    def _split_scope(self, nodeid: str) -> str:
        return "checkouts" if nodeid.partition("/e2e/")[2].startswith(CHECKOUTS) else "servers"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Halves:
    return Halves(config, log)


@pytest.fixture
def make_checkout(tmp_path: Path) -> Iterator[Callable[[], Checkout]]:
    """Make fresh checkouts; what they started with Compose is gone afterwards, volumes and images included."""
    made: list[Checkout] = []

    def make() -> Checkout:
        # With a space in its name, as people have it.
        made.append(Checkout(copy_checkout(tmp_path / f"checkout {len(made)}")))
        return made[-1]

    yield make
    for checkout in made:
        checkout.compose("down", "--volumes", "--rmi", "local", "--timeout", "1", check=False)


@pytest.fixture
def checkout(make_checkout: Callable[[], Checkout]) -> Checkout:
    return make_checkout()
