"""What stands for the whole run is not looked up again for each test.

For every test, pytest asks each fixture of the session, and each of those that it rests on, whether it is still what
it was; behind `postgres_engine` there are a dozen, and asking them took as long as the cheapest tier itself. Those that
stand, and have no parameter, are put where pytest would have found them in the end. It has no public place for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


NOW = pytest.StashKey["Now"]()


class Now:
    """The test that this process is at, known without the fixture `request`, which pytest makes anew at each wish."""

    def __init__(self) -> None:
        self.item: pytest.Item
        self.request: pytest.FixtureRequest
        """The test's own, which finds what any of its fixtures could ask for."""
        self.settle: Callable[[], None] = lambda: None
        """Called before each test, to wait for what the last one left to be done."""
        self._standing: dict[int, tuple[object, dict[str, pytest.FixtureDef[Any]]]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.settle()
        self.item = item
        request, info = getattr(item, "_request", None), getattr(item, "_fixtureinfo", None)
        found = getattr(request, "_fixture_defs", None)
        if request is None:
            return
        self.request = request
        if info is None or found is None:
            return
        # Tests that differ in their parameters' values alone share it.
        known = self._standing.get(id(info))
        if known is None:
            known = self._standing[id(info)] = info, _of_the_session(item, info.name2fixturedefs)
        values = {}
        for name, each in known[1].items():
            # Not there yet, failed, or there with the parameter of another test.
            if each.cached_result is None or each.cached_result[1:] != (None, None):
                return
            values[name] = each.cached_result[0]
        found.update(known[1])
        item.funcargs.update(values)  # type: ignore[attr-defined]  # it asks for fixtures, and so has them


def _of_the_session(
    item: pytest.Item, visible: Mapping[str, Sequence[pytest.FixtureDef[Any]]]
) -> dict[str, pytest.FixtureDef[Any]]:
    """Return the fixtures of ours, and what they rest on, that last for the session and have no parameter."""
    with_parameter = item.callspec.params if hasattr(item, "callspec") else {}
    lasting: dict[str, bool] = {"request": True}

    def lasts(name: str) -> bool:
        if name not in lasting:
            # One that overrides another may ask for it, by the name of both.
            lasting[name] = bool(visible.get(name)) and name not in with_parameter
            lasting[name] = lasting[name] and all(
                each.scope == "session" and all(map(lasts, each.argnames)) for each in visible[name]
            )
        return lasting[name]

    for name in visible:
        if name.lstrip("_").startswith("postgres_"):
            lasts(name)
    return {name: visible[name][-1] for name, is_so in lasting.items() if is_so and name != "request"}
