"""The fixtures: what a test asks for, from a server's URL to an engine on a database of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import pytest

from .databases import LOCK_SECONDS, Databases, TemplateUnavailable
from .guard import connections_seen
from .run_state import RUN
from .server import Kind, PostgresUnavailable, sqlalchemy_url
from .shared import Shared
from .shelf import Shelf
from .standing import NOW, Now
from .tiers import WANTED, tier_of
from .uses import begin_committing, end_committing, in_committing, in_session, own_database, use_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from .one_engine import OneEngine


@dataclass(frozen=True)
class ServerInfo:
    """The server that the run uses; `url` is administrative, for SQLAlchemy and psycopg alike."""

    url: str = field(repr=False)
    kind: Kind
    version: str


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> ServerInfo:
    """Return the run's server, started if this is the first that asks for it."""
    try:
        server = pytestconfig.stash[RUN].server
    except (PostgresUnavailable, pytest.UsageError) as error:
        # The same words for every test would bury them.
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
    return ServerInfo(sqlalchemy_url(server.url), server.kind, server.version)


@pytest.fixture(scope="session")
def postgres_prepare() -> Callable[[str], None]:
    """Override this: return what brings the new, empty database of this URL to the wanted schema.

    It is called once a run, whatever the number of workers, and has to close its connections.
    """
    return lambda _url: None


@pytest.fixture(scope="session")
def postgres_lock_seconds() -> float:
    """Override this: how long after a test its open transactions are waited for, before they are ended."""
    return LOCK_SECONDS


@pytest.fixture(scope="session")
def postgres_connect() -> Callable[..., Engine]:
    """Override this: return what makes an engine of a URL and of SQLAlchemy's engine options, as `create_engine` does.

    It is called once a process. The engine has to be for psycopg, and to open its connections itself.
    """
    from sqlalchemy import create_engine  # noqa: PLC0415 (whoever asks for no engine needs no SQLAlchemy)

    return create_engine


@pytest.fixture(scope="session")
def _postgres_shelf(
    postgres_server: ServerInfo,  # noqa: ARG001 (asked for, so that a failed start ends the run)
    pytestconfig: pytest.Config,
) -> Iterator[Shelf]:
    run = pytestconfig.stash[RUN]
    url = run.server.url
    shelf = Shelf(lambda: Databases(url, run.run_id), run.worker, pytestconfig.stash.get(WANTED, {}))
    yield shelf
    shelf.close()


@pytest.fixture(scope="session")
def _postgres_template(
    postgres_server: ServerInfo, _postgres_shelf: Shelf, postgres_prepare: Callable[[str], None]
) -> str:
    try:
        name = _postgres_shelf.databases.template(
            lambda url: postgres_prepare(sqlalchemy_url(url)), ours=postgres_server.kind != "given"
        )
    except TemplateUnavailable as error:
        pytest.fail(str(error), pytrace=False)
    _postgres_shelf.know_template(name)
    return name


@pytest.fixture(scope="session")
def _postgres_shared(
    postgres_server: ServerInfo, _postgres_shelf: Shelf, _postgres_template: str, postgres_lock_seconds: float
) -> Iterator[Shared]:
    shared = Shared(
        _postgres_shelf, _postgres_template, postgres_lock_seconds, watched=postgres_server.kind != "given"
    )
    with connections_seen(shared.see):
        yield shared
    shared.close()


@pytest.fixture(scope="session")
def postgres_database(_postgres_shared: Shared) -> str:
    """Return the URL of a copy of the template, which all tests of this process share in the first two tiers."""
    return sqlalchemy_url(_postgres_shared.url)


@pytest.fixture(scope="session")
def _postgres_one_engine(
    _postgres_shared: Shared, _postgres_now: Now, postgres_connect: Callable[..., Engine]
) -> Iterator[OneEngine]:
    from .one_engine import OneEngine  # noqa: PLC0415 (it needs SQLAlchemy)

    one = OneEngine(postgres_connect, _postgres_shared, _postgres_now)
    _postgres_shared.held, _postgres_now.settle = one.held, one.held.settle
    yield one
    one.close()


@pytest.fixture(scope="session")
def _postgres_now(pytestconfig: pytest.Config) -> Now:
    return pytestconfig.stash[NOW]


@pytest.fixture
def postgres_engine(_postgres_one_engine: OneEngine) -> Iterator[Engine]:
    """Give the process's one engine, on the database of the test's tier; it must not be kept for longer.

    `@pytest.mark.postgres("session")`, the default, rolls everything back: its commits are savepoints, and TierTooWeak
    says where a test needs more. `"committing"` commits truly. `"clone"` and `"empty"` have a database of their own.
    Without a marker the tier is that of the one URL fixture that the test asks for.
    """
    one = _postgres_one_engine
    item, names = one.now.item, one.now.request.fixturenames
    try:
        tier = tier_of(item, names)
    except pytest.UsageError as error:
        pytest.fail(str(error), pytrace=False)
    if tier == "session":
        yield from in_session(item, one)
    elif tier == "committing" and "postgres_committing" not in names:
        # As that fixture does, without the time that pytest takes to come to another.
        yield from in_committing(item, one)
    else:
        one.now.request.getfixturevalue(f"postgres_{tier}")
        use = use_of(item.config, tier)
        started = perf_counter()
        with one.committing(use) if tier == "committing" else one.elsewhere(use) as engine:
            use.seconds += perf_counter() - started
            yield engine
            started = perf_counter()
        use.seconds += perf_counter() - started


@pytest.fixture
def postgres_committing(_postgres_shared: Shared, _postgres_now: Now) -> Iterator[str]:
    """Give the URL of the shared database; afterwards its rows and sequences are as in the template.

    A test that leaves more behind fails with what that is: DDL, settings, transactions, locks of a session.
    """
    shared = _postgres_shared
    if shared.committing is not None:
        # The test's engine is on it already, and sees to what comes after.
        yield sqlalchemy_url(shared.url)
        return
    use = begin_committing(_postgres_now.item, shared)
    yield sqlalchemy_url(shared.url)
    end_committing(use, shared)


@pytest.fixture
def postgres_clone(
    _postgres_now: Now,
    _postgres_shelf: Shelf,
    _postgres_template: str,
) -> Iterator[str]:
    """Give the URL of a copy of the template that is this test's own, for tests that change the schema."""
    yield from own_database(_postgres_now.item, _postgres_shelf, "clone")


@pytest.fixture
def postgres_empty(_postgres_now: Now, _postgres_shelf: Shelf) -> Iterator[str]:
    """Give the URL of a new database with nothing in it, for tests that bring one to a schema."""
    _postgres_shelf.start()
    yield from own_database(_postgres_now.item, _postgres_shelf, "empty")
