"""Many clients at once: they wait for a connection, and neither a lock nor a lost database stops the API.

If requests block each other, these tests fail within half a minute instead of hanging: a thread waits at most 1 s for
the pool (see `create_app`) and 20 s for a lock.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy import Engine, create_engine, text

from backend import dependencies
from backend.config import load_settings
from backend.database import SessionLocal
from backend.main import create_app
from backend.tests import factories

COMPANIES = "/api/v1/companies"
THREADS = 40  # AnyIO's default; the tests need more clients than threads


@pytest.fixture
def company(engine: Engine) -> str:
    """Return the path of a company."""
    with SessionLocal(bind=engine) as session, session.begin():
        return f"{COMPANIES}/{factories.make_company(session).id}"


@asynccontextmanager
async def serving(engine: Engine, *, pool_size: int) -> AsyncIterator[AsyncClient]:
    """Start an application with its own pool on the engine's database."""
    url = engine.url.update_query_dict({"options": "-c lock_timeout=20s"})
    settings = load_settings(
        _env_file=None,
        app_env="test",
        database_url=url.render_as_string(hide_password=False),
        database_pool_size=pool_size,
    )
    app = create_app(settings)
    transport = ASGITransport(app=app)
    async with (
        asyncio.timeout(30),
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def statuses(*requests: Awaitable[Response]) -> Counter[int]:
    return Counter(response.status_code for response in await asyncio.gather(*requests))


@pytest.mark.parametrize("pool_size", [2, THREADS + 10])
def test_crowd_that_changes_one_row_is_served(
    engine: Engine, company: str, pool_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works with more connections than threads, too: the request with the row lock needs a thread to finish."""
    monkeypatch.setattr(dependencies, "LONGEST_WAIT", 25)
    crowd = 2 * THREADS + 20

    async def change() -> Counter[int]:
        async with serving(engine, pool_size=pool_size) as client:
            return await statuses(*(client.patch(company, json={"name": f"Name {n}"}) for n in range(crowd)))

    assert asyncio.run(change()) == {200: crowd}


def test_health_is_answered_and_waiting_ends_while_every_connection_is_taken(
    engine: Engine, company: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "LONGEST_WAIT", 0.1)
    pool_size = 3

    async def wait() -> tuple[list[Response], Counter[int], Counter[int]]:
        async with serving(engine, pool_size=pool_size) as client:
            with engine.begin() as blocker:
                blocker.execute(text("SELECT FROM companies FOR UPDATE"))
                first = [
                    asyncio.ensure_future(client.patch(company, json={"name": "Other"}))
                    for _ in range(pool_size)
                ]
                rest = await asyncio.gather(*(client.get(company) for _ in range(THREADS)))
                health = await statuses(client.get("/health/ready"), client.get("/health/live"))
            return rest, health, await statuses(*first)

    rest, health, first = asyncio.run(wait())

    assert (health, first) == ({200: 2}, {200: pool_size})
    assert {(response.status_code, response.headers["retry-after"]) for response in rest} == {(503, "5")}
    assert "no database connection became free within 0.1 s" in rest[0].json()["detail"]


def test_database_that_goes_away_and_returns_under_load_loses_nothing(engine: Engine) -> None:
    """The database ends its connections and refuses new ones; when it is back, the next request is served."""
    acknowledged: list[str] = []
    seen: Counter[int] = Counter()
    is_served, is_refused = asyncio.Event(), asyncio.Event()
    name = engine.url.database

    async def write(client: AsyncClient, prefix: int) -> None:
        for number in range(2):
            company = f"{prefix}-{number}"
            status = (await client.post(COMPANIES, json={"name": company})).status_code
            seen[status] += 1
            if status == 201:
                acknowledged.append(company)
                is_served.set()
            else:
                is_refused.set()

    async def lose_the_database() -> None:
        admin = create_engine(engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        end = text(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = :name AND backend_type = 'client backend'"
        )
        async with serving(engine, pool_size=5) as client:
            with admin.connect() as connection:
                crowd = asyncio.gather(*(write(client, number) for number in range(2 * THREADS)))
                await is_served.wait()
                connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'))
                connection.execute(end, {"name": name})
                await is_refused.wait()
                connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'))
                assert (await client.post(COMPANIES, json={"name": "after"})).status_code == 201
                await crowd
        admin.dispose()

    asyncio.run(lose_the_database())

    assert set(seen) == {201, 503}
    with engine.connect() as connection:
        assert set(acknowledged) <= set(connection.scalars(text("SELECT name FROM companies")))
