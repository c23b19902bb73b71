"""Migrations and timestamps work through a real PgBouncer in transaction mode."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import Connection, Engine, make_url, text

from backend import migrations
from backend.database import connect, init_db, reset_db, schema_state
from backend.migrations.drift import differences
from backend.tests.loopback import free_port

from .checkout import ROOT

IMAGE = "procore-e2e-pgbouncer:1"
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
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("pgbouncer")
    (place / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    (place / "pgbouncer.ini").write_text(SETTINGS, encoding="utf-8")
    (place / "userlist.txt").write_text('"postgres" "postgres"\n', encoding="utf-8")
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", IMAGE, place], check=True, stdout=subprocess.DEVNULL
    )
    yield IMAGE
    subprocess.run(["docker", "rmi", "--force", IMAGE], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def url(image: str) -> Iterator[str]:
    """Give the URL of the pool, in front of a server that has nothing in it."""
    port = free_port()
    started = subprocess.run(
        ["docker", "run", "--detach", "--rm", "--env", "POSTGRES_PASSWORD=postgres", "--tmpfs", "/var/lib/postgresql",
         "--publish", f"127.0.0.1:{port}:6432", image],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    container = started.stdout.strip()
    pooled = f"postgresql://postgres:postgres@127.0.0.1:{port}/pooled"
    try:
        bouncer = ["pgbouncer", "/etc/bouncer/pgbouncer.ini"]
        command = ["docker", "exec", "--detach", "--user", "postgres", container, *bouncer]
        subprocess.run(command, check=True)
        wait_for(pooled)
        yield pooled.replace("postgresql:", "postgresql+psycopg:")
    finally:
        subprocess.run(["docker", "rm", "--force", container], check=True, stdout=subprocess.DEVNULL)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.Error:
            assert time.monotonic() < deadline, "PgBouncer did not answer"
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def pooled(url: str) -> Iterator[Engine]:
    engine = connect(url)
    yield engine
    engine.dispose()


def test_database_behind_it_migrates_is_compared_and_is_reset(pooled: Engine) -> None:
    first, second = init_db(pooled), init_db(pooled)

    assert (first.current, second.current) == (None, migrations.head())
    assert "table public.users" in reset_db(pooled).dropped
    with pooled.connect() as connection:
        assert schema_state(connection).is_at_head
        assert differences(connection) == []


def test_processes_that_start_together_behind_it_all_succeed_and_one_does_the_work(url: str) -> None:
    """The lock belongs to the transaction: a session-level lock would stay on a connection that all clients share."""
    command = [sys.executable, "-m", "backend.scripts.init_db"]
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


def test_pool_without_transactions_is_reported_at_once(url: str) -> None:
    apart = make_url(url).set(database="statements")
    environment = os.environ | {"DATABASE_URL": apart.render_as_string(hide_password=False)}
    command = [sys.executable, "-m", "backend.scripts.init_db"]

    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert time.monotonic() - began < 20, "waiting cannot help, so the start must not wait"
    assert "transaction blocks not allowed in statement pooling mode" in done.stderr
    assert done.stderr.count("\n") <= 2


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
