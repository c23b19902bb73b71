"""Start one server in this fresh process, ask it one query, and say how long that took: `boot.py WAY`."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from freshpg import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

POLL_SECONDS = 0.005


@contextmanager
def ours(request: str) -> Iterator[str]:
    with choose(request).start() as server:
        yield server.url


@contextmanager
def plain_docker() -> Iterator[str]:
    """`docker run postgres:18` as one would type it for tests, polled over TCP."""
    name, password = f"bench-{secrets.token_hex(6)}", secrets.token_hex(12)
    settings = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
    try:
        _docker(
            *("run", "--detach", "--rm", "--name", name, "--publish", "127.0.0.1::5432"),
            *("--tmpfs", "/var/lib/postgresql", "--env", f"POSTGRES_PASSWORD={password}", "postgres:18"),
            *(word for setting in settings for word in ("-c", setting)),
        )
        place = _docker("port", name, "5432/tcp").splitlines()[0]
        yield f"postgresql://postgres:{password}@{place}/postgres"
    finally:
        _docker("rm", "--force", "--volumes", name)


def _docker(*arguments: str) -> str:
    command = ("docker", *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def plain_testcontainers() -> Iterator[str]:
    from benchmarks.isolation.peers.with_testcontainers import new_container  # noqa: PLC0415  a slow import

    with new_container() as container:
        yield container.get_connection_url(driver=None)


@contextmanager
def pytest_postgresql() -> Iterator[str]:
    from pytest_postgresql.executors import (  # type: ignore[import-not-found]  # noqa: PLC0415  there alone
        PostgreSQLExecutor,
    )

    place = os.environ["BENCH_PLACE"]
    server = PostgreSQLExecutor(
        executable=os.environ["BENCH_PG_CTL"],
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        datadir=f"{place}/data-{secrets.token_hex(6)}",
        unixsocketdir=place,
        logfile=f"{place}/boot.log",
        startparams="-w",
        dbname="postgres",
        postgres_options="-c full_page_writes=off -c synchronous_commit=off",
    )
    try:
        server.start()
        server.wait_for_postgres()
        yield f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    finally:
        server.stop()
        server.clean_directory()


WAYS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "ours, embedded": lambda: ours("embedded"),
    "ours, in Docker": lambda: ours("docker"),
    "docker run": plain_docker,
    "testcontainers": plain_testcontainers,
    "pytest-postgresql": pytest_postgresql,
}
IMPORTS = {
    "ours, in Docker": "freshpg.container_start",
    "testcontainers": "benchmarks.isolation.peers.with_testcontainers",
    "pytest-postgresql": "pytest_postgresql.executors",
}
"""What a way imports of its own at its first use, which is told apart."""


def answered(url: str) -> None:
    """Return once the server has answered a query."""
    while True:
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                connection.execute("select 1")
        except psycopg.OperationalError:
            # It is polled, as by whoever waits for a container.
            time.sleep(POLL_SECONDS)
        else:
            return


def main(way: str) -> None:
    began = time.perf_counter()
    if way in IMPORTS:
        __import__(IMPORTS[way])
    imported = time.perf_counter()
    with WAYS[way]() as url:
        answered(url)
        seconds = time.perf_counter() - imported
    print(json.dumps({"seconds": seconds, "imports": imported - began}))


if __name__ == "__main__":
    main(sys.argv[1])
