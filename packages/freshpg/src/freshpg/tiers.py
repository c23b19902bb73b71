"""Which tier a test is in, by marker or by fixture, and what the report of a failed one says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

import pytest

from .guard import ASK
from .ledger import Tier, Use, ledger_of

if TYPE_CHECKING:
    from collections.abc import Generator

_FIXTURES: dict[str, Tier] = {
    "postgres_committing": "committing",
    "postgres_clone": "clone",
    "postgres_empty": "empty",
}
WANTED = pytest.StashKey[dict[str, int]]()
"""How many of the collected tests want a clone, and how many an empty database."""


def marked_tier(item: pytest.Item) -> Tier | None:
    """Return the tier that a test's marker names; UsageError in one line where it names none."""
    marker = item.get_closest_marker("postgres")
    if marker is None:
        return None
    tiers = get_args(Tier)
    if len(marker.args) != 1 or marker.kwargs or marker.args[0] not in tiers:
        given = ", ".join(map(repr, marker.args)) or "nothing"
        raise pytest.UsageError(
            f"{item.nodeid}: @pytest.mark.postgres takes one of {', '.join(tiers)}, and not {given}."
        )
    return cast("Tier", marker.args[0])


def tier_of(item: pytest.Item, names: list[str]) -> Tier:
    """Return the tier of the database that a test's engine is on, given the names of its fixtures.

    The marker says it, else the one fixture of a tier that the test asks for, else it is `session`. Several of those
    fixtures beside an engine leave open which is meant, and `session` cannot share its database with `committing`: both
    are a UsageError.
    """
    marked = marked_tier(item)
    asked = [_FIXTURES[name] for name in _FIXTURES if name in names]
    if marked is not None:
        if marked == "session" and "committing" in asked:
            raise pytest.UsageError(
                f"{item.nodeid} is marked session and asks for postgres_committing, on the same database; keep one."
            )
        return marked
    if len(asked) > 1:
        raise pytest.UsageError(
            f"{item.nodeid} asks for {' and '.join(f'postgres_{tier}' for tier in asked)}: say which its engine is "
            f'on, by @pytest.mark.postgres("{asked[0]}").'
        )
    return asked[0] if asked else "session"


def hints(use: Use) -> list[str]:
    """Say what of a failure may be the tier's doing: nothing for tests with commits of their own."""
    if use.tier != "session":
        return []
    told = list(use.notes)
    if use.commits:
        told.append(
            f"In the tier session the test's {use.commits} commits were savepoints of one transaction, which is rolled "
            "back: other connections and processes saw none of them, and now() stood still."
        )
    return [*told, ASK] if told else []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "postgres(tier): how a test's database is kept apart: session (rolled back, the default), committing, clone or "
        "empty.",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = {"clone": 0, "empty": 0}
    for item in items:
        try:
            marked = marked_tier(item)
        except pytest.UsageError:
            # A worker has no way to end the run in a line; there the test itself fails with it.
            if not hasattr(config, "workerinput"):
                raise
            continue
        names: list[str] = getattr(item, "fixturenames", [])
        for tier in wanted:
            if marked == tier or f"postgres_{tier}" in names:
                wanted[tier] += 1
    config.stash[WANTED] = wanted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when == "call":
        told = [hint for use in ledger_of(item.config).of(item.nodeid) for hint in hints(use)]
        if told:
            report.sections.append(("PostgreSQL tier", "\n".join(dict.fromkeys(told))))
    return report
