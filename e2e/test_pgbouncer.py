"""Migrations and timestamps work through a real PgBouncer in transaction mode."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text

from backend.database import connect, init_db, reset_db, schema_state
from backend.migrations.drift import differences
from backend.tests.loopback import free_port
from backend.tests.support import wait_until

from .checkout import ROOT, accepts, docker

IMAGE = f"procore-e2e-pgbouncer-{uuid4().hex[:8]}"
DOCKERFILE = """\
FROM postgres:18
RUN apt-get -o Acquire::Retries=5 update \\
 && apt-get -o Acquire::Retries=5 install --yes --no-install-recommends pgbouncer \\
 && rm -rf /var/lib/apt/lists/*
COPY pgbouncer.ini userlist.txt /etc/bouncer/
"""
# There is one connection to the server, so that all clients of the pool share the same session.
SETTINGS = """\
[databases]
pooled = host=127.0.0.1 port=5432 dbname=postgres user=postgres password=postgres pool_mode=transaction pool_size=1
statements = host=127.0.0.1 port=5432 dbname=postgres user=postgres password=postgres pool_mode=statement
[pgbouncer]
listen_addr = *
listen_port = 6432
auth_type = plain
auth_file = /etc/bouncer/userlist.txt
server_tls_sslmode = disable
server_login_retry = 1
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of the pool, in front of a new server."""
    place, port = tmp_path_factory.mktemp("pgbouncer"), free_port()
    (place / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    (place / "pgbouncer.ini").write_text(SETTINGS, encoding="utf-8")
    (place / "userlist.txt").write_text('"postgres" "postgres"\n', encoding="utf-8")
    docker("build", "--quiet", "--tag", IMAGE, str(place))
    container = docker(
        "run", "--detach", "--rm", "--env", "POSTGRES_PASSWORD=postgres", "--tmpfs", "/var/lib/postgresql",
        "--publish", f"127.0.0.1:{port}:6432", IMAGE,
    )  # fmt: skip
    pooled = f"postgresql://postgres:postgres@127.0.0.1:{port}/pooled"
    try:
        bouncer = ("pgbouncer", "/etc/bouncer/pgbouncer.ini")
        docker("exec", "--detach", "--user", "postgres", container, *bouncer)
        wait_until(lambda: accepts(pooled), seconds=60, what="PgBouncer")
        yield pooled.replace("postgresql:", "postgresql+psycopg:")
    finally:
        docker("rm", "--force", container)
        docker("rmi", "--force", IMAGE)


@pytest.fixture
def pooled(url: str) -> Iterator[Engine]:
    engine = connect(url)
    yield engine
    engine.dispose()


def test_processes_that_start_together_behind_it_all_succeed_and_one_does_the_work(
    pooled: Engine, url: str
) -> None:
    """The lock belongs to the transaction: a session-level lock would stay on a connection that all clients share."""
    command = [sys.executable, "-m", "backend.scripts.init_db"]
    with pooled.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    environment = os.environ | {"DATABASE_URL": url}
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(4)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in started]

    assert [process.returncode for process in started] == [0] * 4, said
    assert sorted("from nothing to" in each for each in said) == [False] * 3 + [True], said
    assert init_db(pooled).is_at_head


def test_pool_without_transactions_is_reported_in_two_lines(url: str) -> None:
    environment = os.environ | {"DATABASE_URL": url.replace("/pooled", "/statements")}
    command = [sys.executable, "-m", "backend.scripts.init_db"]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "transaction blocks not allowed in statement pooling mode" in done.stderr
    assert done.stderr.count("\n") <= 2


def test_database_behind_it_is_reset_and_compared(pooled: Engine) -> None:
    init_db(pooled)

    assert "table public.users" in reset_db(pooled)
    with pooled.connect() as connection:
        assert schema_state(connection).is_at_head
        assert differences(connection) == []


def rendered(connection: Connection) -> object:
    """Let the server render an instant, which depends on the session's zone."""
    return connection.scalar(text("SELECT CAST(CAST('2024-11-03 05:30+00' AS timestamptz) AS text)"))


def test_session_that_another_client_moved_shows_utc_to_ours(pooled: Engine, url: str) -> None:
    """Both clients use the same session. PgBouncer restores each client's zone, and our checkout checks it again."""
    instant = datetime(2024, 11, 3, 5, 30, tzinfo=UTC)
    epoch = text("SELECT (extract(epoch FROM CAST(:at AS timestamptz)) * 1000000)::int8")
    with pooled.connect() as connection:
        assert connection.scalar(text("SHOW timezone")) == "UTC"
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute("SET timezone = 'America/New_York'; SET datestyle = 'SQL, DMY'")
        assert other.execute("SELECT pg_backend_pid()").fetchone() == (backend,)

        with pooled.connect() as connection:
            assert connection.scalar(text("SELECT pg_backend_pid()")) == backend
            assert rendered(connection) == "2024-11-03 05:30:00+00"
            loaded = connection.scalar(text("SELECT CAST('2024-11-03 05:30+00' AS timestamptz)"))
            assert connection.scalar(epoch, {"at": instant}) == 1_730_611_800_000_000
        assert other.execute("SHOW timezone").fetchone() == ("America/New_York",), (
            "the other client keeps its zone"
        )
    assert loaded == instant
    assert loaded.tzinfo is UTC


def test_zone_that_a_client_of_ours_left_behind_is_repaired_at_checkout(pooled: Engine) -> None:
    """PgBouncer restores this zone, because our own client has set it."""
    with pooled.connect() as connection:
        connection.execute(text("SET timezone = 'America/New_York'"))
        connection.commit()
        assert rendered(connection) == "2024-11-03 01:30:00-04"

    with pooled.connect() as connection:
        assert rendered(connection) == "2024-11-03 05:30:00+00"
