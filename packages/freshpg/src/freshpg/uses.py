"""What is done for a test's use of a database, before it and after it, in each tier."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import pytest

from .keeping import is_kept
from .ledger import Tier, Use, ledger_of
from .server import sqlalchemy_url
from .shared import SESSIONS, Shared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from .one_engine import OneEngine
    from .reset import Found
    from .shelf import Shelf


def _new_use(item: pytest.Item, tier: Tier, url: str) -> Use:
    name = url.rpartition("/")[2].partition("?")[0]
    use = Use(item.nodeid, tier, name, url)
    ledger_of(item.config).uses.append(use)
    return use


def use_of(config: pytest.Config, tier: Tier) -> Use:
    """Return the newest use of this tier."""
    return next(use for use in reversed(ledger_of(config).uses) if use.tier == tier)


def _restore_before(use: Use, shared: Shared) -> None:
    # That nothing came by now says nothing of the test.
    use.server_changed = shared.restore().server_changed or None


def _restore_after(use: Use, shared: Shared) -> Found:
    found = shared.restore()
    use.server_changed = use.server_changed or found.server_changed
    return found


def _fail(use: Use, found: Found) -> None:
    use.faults += found.faults
    if found.faults:
        pytest.fail("\n".join(found.faults), pytrace=False)


def in_session(item: pytest.Item, one: OneEngine) -> Iterator[Engine]:
    """Lend the engine for a test whose work is rolled back."""
    shared = one.shared
    use = _new_use(item, "session", shared.url)
    use.keep, use.kept_as = one.held.keep, shared.name_if_kept()
    started = perf_counter()
    if shared.written_past or shared.sessions >= SESSIONS:
        _restore_before(use, shared)
    with one.session(use) as engine:
        shared.in_session = True
        use.seconds += perf_counter() - started
        try:
            yield engine
        finally:
            started = perf_counter()
            shared.in_session = False
    # Sequences are not rolled back, and a connection past the engine may have committed.
    shared.sessions += bool(use.statements)
    found = None
    if is_kept(use.database):
        shared.replace(kept_as=use.kept_as)
    elif shared.written_past:
        found = _restore_after(use, shared)
    use.seconds += perf_counter() - started
    if found is not None:
        _fail(use, found)


def in_committing(item: pytest.Item, one: OneEngine) -> Iterator[Engine]:
    """Lend the engine for a test that commits truly."""
    use = begin_committing(item, one.shared)
    started = perf_counter()
    try:
        with one.committing(use) as engine:
            use.seconds += perf_counter() - started
            yield engine
            started = perf_counter()
        use.seconds += perf_counter() - started
    finally:
        end_committing(use, one.shared)


def begin_committing(item: pytest.Item, shared: Shared) -> Use:
    """Make the shared database ready for a test that commits truly."""
    use = _new_use(item, "committing", shared.url)
    use.kept_as = shared.name_if_kept()
    started = perf_counter()
    if shared.sessions or shared.written_past:
        _restore_before(use, shared)
    use.seconds += perf_counter() - started
    shared.committing = use
    return use


def end_committing(use: Use, shared: Shared) -> None:
    """Take the shared database back to the template, and fail the test for what it left besides rows."""
    shared.committing = None
    if is_kept(use.database):
        shared.replace(kept_as=use.kept_as)
        return
    started = perf_counter()
    found = _restore_after(use, shared)
    use.seconds += perf_counter() - started
    _fail(use, found)


def own_database(item: pytest.Item, shelf: Shelf, tier: Tier) -> Iterator[str]:
    """Lend the URL of a database that is this test's own."""
    started = perf_counter()
    name = shelf.take(tier)
    use = _new_use(item, tier, shelf.databases.url_of(name))
    use.seconds += perf_counter() - started
    yield sqlalchemy_url(use.url)
    if not is_kept(name):
        started = perf_counter()
        shelf.give_back(name)
        use.seconds += perf_counter() - started
