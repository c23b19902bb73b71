"""Fixtures for fresh checkouts that leave nothing behind."""

from collections.abc import Callable, Iterator

import pytest

from .checkout import Checkout, copy_checkout


@pytest.fixture(scope="module")
def make_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Checkout]]:
    """Make fresh checkouts; their Compose containers, volumes and images are removed afterwards."""
    made: list[Checkout] = []

    def make() -> Checkout:
        # The name has a space, as directories of users may have.
        made.append(Checkout(copy_checkout(tmp_path_factory.mktemp("fresh") / "a checkout")))
        return made[-1]

    yield make
    for checkout in made:
        checkout.compose("down", "--volumes", "--rmi", "local", "--timeout", "1", check=False)


@pytest.fixture
def checkout(make_checkout: Callable[[], Checkout]) -> Checkout:
    return make_checkout()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the documentation's commands, because they take longest."""
    items.sort(key=lambda item: "test_readme.py" not in item.nodeid)
