import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from freshpg import Server
from freshpg.databases import Databases

from .processes import query

RUN_ID = "00000000ff"


@pytest.fixture(params=["statement_timeout", "lock_timeout", "transaction_timeout"])
def hasty_url(request: pytest.FixtureRequest, embedded: Server) -> Iterator[str]:
    query(embedded.url, "create role hasty login createdb password 'hasty'")
    query(embedded.url, f"alter role hasty set {request.param} to '200ms'")
    yield f"postgresql://hasty:hasty@{embedded.url.partition('@')[2]}"
    query(embedded.url, "drop role hasty")


def test_worker_waits_for_the_template_whatever_timeouts_its_role_has(hasty_url: str) -> None:
    first, second = Databases(hasty_url, RUN_ID), Databases(hasty_url, RUN_ID)
    begun, released = threading.Event(), threading.Event()

    def migrate(_url: str) -> None:
        begun.set()
        released.wait(20)

    with ThreadPoolExecutor() as pool:
        made = pool.submit(first.template, migrate)
        begun.wait(20)
        threading.Timer(1, released.set).start()
        try:
            assert second.template(migrate) == made.result()
        finally:
            released.set()
            made.result()
            first.drop_all()
            first.close()
            second.close()
