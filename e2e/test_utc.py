"""The proof that no layer stores or shows a wrong time, on every server that is supported, whatever its own zone is."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from backend.tests.loopback import free_port
from freshpg import start_ephemeral

from .checkout import ROOT, wait_until

ZONES = ("America/New_York", "Asia/Kathmandu")


@contextmanager
def container(image: str) -> Iterator[str]:
    """Run the image as people do, with nothing on its command line that says a zone."""
    port = free_port()
    command = ("docker", "run", "--rm", "--detach", "--env", "POSTGRES_PASSWORD=e2e", "--tmpfs", "/pgtmp:rw")
    place = ("--env", "PGDATA=/pgtmp/data", "--publish", f"127.0.0.1:{port}:5432", image, "-c", "fsync=off")
    started = subprocess.run([*command, *place], capture_output=True, text=True, check=True)
    url = f"postgresql://postgres:e2e@127.0.0.1:{port}/postgres"
    try:
        wait_until(lambda: takes_connections(url), seconds=60, what=f"{image} answers")
        yield url
    finally:
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", started.stdout.strip()],
            check=True,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def embedded(_name: str) -> Iterator[str]:
    with start_ephemeral() as server:
        yield server.url


def takes_connections(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def set_of_the_server(url: str, **settings: str) -> dict[str, str]:
    """Change settings in the server's own configuration; return what a new session then sees."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        connection.execute("SELECT pg_reload_conf()")
    seen: dict[str, str] = {}

    def is_seen() -> bool:
        with psycopg.connect(url) as connection:
            for name in settings:
                seen[name] = connection.execute("SELECT current_setting(%s)", [name]).fetchall()[0][0]
        return seen == settings

    wait_until(is_seen, seconds=10, what=f"{settings} hold for new sessions")
    return seen


@pytest.mark.parametrize("server", ["postgres:15", "postgres:17", "postgres:18", "embedded"])
def test_proof_holds_on_a_server_in_another_zone(server: str) -> None:
    with (embedded if server == "embedded" else container)(server) as url:
        for zone in ZONES:
            set_of_the_server(url, timezone=zone, datestyle="SQL, DMY")
            done = subprocess.run(
                [sys.executable, "-m", "devtools.utc_check", "--json"],
                cwd=ROOT,
                env=os.environ | {"DATABASE_URL": url, "APP_ENV": "test"},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )

            assert done.returncode == 0, done.stdout + done.stderr
            report = json.loads(done.stdout)
            assert report["proved"]
            assert report["checks"] > 100_000
            assert report["server"]["TimeZone"] == zone
