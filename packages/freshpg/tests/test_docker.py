import os
import subprocess
import time
from pathlib import Path

import pytest
from docker.context import ContextAPI

from freshpg import PostgresUnavailable, choose, start_ephemeral
from freshpg.docker_client import EngineUnavailable, engine_address, find_engine

from .processes import LIBPQ, owner, query, show, wait_for_death

SETTINGS = (
    "fsync",
    "wal_level",
    "max_connections",
    "max_prepared_transactions",
    "server_encoding",
    "timezone",
    "data_checksums",
    "dynamic_shared_memory_type",
    "work_mem",
)
LOCALES = "select datname, datlocprovider, datlocale, datcollate, datctype from pg_database order by 1"

OWNER = """
import sys
from freshpg import choose
from testcontainers.core.labels import SESSION_ID
server = choose("docker").start()
print(SESSION_ID, flush=True)
sys.stdin.read()
"""


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def containers(session: str) -> list[str]:
    """Return the containers of one process that uses testcontainers, without its reaper."""
    return docker("ps", "-aq", "--filter", f"label=org.testcontainers.session-id={session}").split()


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    try:
        find_engine().close()
    except EngineUnavailable as error:
        pytest.skip(error.reason)


def test_a_container_has_the_settings_of_an_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIBPQ.items():
        monkeypatch.setenv(name, value)
    with choose("docker", settings=["work_mem=8MB"]).start() as container:
        monkeypatch.undo()
        assert container.kind == "docker"
        assert str(show(container.url, "server_version")[0]).startswith(container.version)
        with start_ephemeral(settings=["work_mem=8MB"]) as embedded:
            assert show(container.url, *SETTINGS) == show(embedded.url, *SETTINGS)
            assert query(container.url, LOCALES) == query(embedded.url, LOCALES)


def test_an_engine_that_a_context_names_is_not_written_to_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, _ = engine_address()
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"currentContext": "named"}', encoding="utf-8")
    ContextAPI.create_context("named", host=address)
    before = os.environ.copy()

    with choose("docker").start():
        assert os.environ == before


def test_a_container_that_ends_at_the_start_is_noticed_at_once_with_its_log() -> None:
    started = time.monotonic()
    with pytest.raises(
        PostgresUnavailable,
        match=r"(?s)the server ended with exit status 1\. Its log ends:\n.*no_such_setting",
    ):
        choose("docker", settings=["no_such_setting=1"]).start()

    assert time.monotonic() - started < 60


def test_a_container_that_is_killed_is_described_in_one_line() -> None:
    with choose("docker").start() as server:
        from testcontainers.core.labels import SESSION_ID  # noqa: PLC0415 (only where Docker is there)

        docker("kill", *containers(SESSION_ID))
        said = wait_for_death(server)

    assert said.startswith("The PostgreSQL container ended with exit status 137. Its log ends: ")
    assert "\n" not in said


def test_a_container_that_is_left_running_outlives_its_owner_and_its_reaper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RYUK_RECONNECTION_TIMEOUT", "1s")
    script = OWNER.replace("sys.stdin.read()", "print(server.leave_running(), flush=True)")
    with owner(script) as (process, session):
        command = process.stdout.readline().split() if process.stdout else []
        assert process.wait(20) == 0
        time.sleep(3)  # a reaper would wait for 1 s; that it is gone leaves no event
        assert len(containers(session)) == 1

        docker(*command[1:])

    assert containers(session) == []


def test_an_image_that_cannot_be_pulled_in_time_is_a_reason_for_embedded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSTGRES_PULL_SECONDS", "2")
    choice = choose("auto", image="postgres.invalid/nosuch:1")

    assert choice.kind == "embedded"
    assert "postgres.invalid/nosuch:1" in choice.announcement
