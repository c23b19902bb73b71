"""Runs of pytest on a server in a container that dies, fills up, or is kept."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from freshpg.engine import engine_address

from .test_containers import PLUGIN, ROOT, containers, note_session, noted_session, wait_until_gone

SUITE = """
import pathlib, subprocess
import psycopg, pytest

def run(url, statement):
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement)

def docker(*words):
    command = ["docker", "--host", "ENGINE", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

def container():
    session = pathlib.Path(__file__).with_name("session").read_text()
    label = f"label=org.testcontainers.session-id={session}"
    return docker("ps", "--quiet", "--filter", label, "--filter", "ancestor=postgres:18").split()[0]

def test_before(postgres_clone):
    pass

def test_death(postgres_empty):
    DEATH
    run(postgres_empty, "STATEMENT")

@pytest.mark.parametrize("number", range(200))
def test_after(postgres_clone, number):
    run(postgres_clone, "select 1")
"""


def run_inside(
    place: Path,
    *arguments: str,
    suite: str = SUITE,
    death: str = "",
    statement: str = "select 1",
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    note_session(place)
    suite = suite.replace("DEATH", death).replace("STATEMENT", statement).replace("ENGINE", engine_address())
    (place / "test_suite.py").write_text(suite, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:randomly", "--postgres", "docker", *arguments],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def last_word(result: subprocess.CompletedProcess[str]) -> str:
    """Return the line that the run ended by, having checked that it is the only report of its kind."""
    assert result.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED), result.stdout
    assert len(re.findall(r"^_{3,} .* _{3,}$", result.stdout, re.MULTILINE)) == 1, result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    found = re.findall(r"^!+ (?:xdist.dsession.Interrupted: )?(.*?) !+$", result.stdout, re.MULTILINE)
    assert len(found) == 1, result.stdout
    return str(found[0])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
@pytest.mark.parametrize(
    ("death", "told"),
    [
        (
            "docker('kill', container())",
            "its container ended with exit code 137",
        ),
        ("docker('rm', '--force', container())", "its container was removed"),
    ],
    ids=["killed", "removed"],
)
def test_a_container_that_ends_in_mid_run_is_told_once(
    tmp_path: Path, death: str, told: str, workers: tuple[str, ...]
) -> None:
    began = time.monotonic()
    result = run_inside(tmp_path, *workers, death=death)

    assert re.fullmatch(
        rf"PostgreSQL 18\S*, in Docker, died in the middle of the run: {told}\.", last_word(result)
    )
    # With the container went its log.
    assert ("Its log ends:\n  " in result.stdout) == ("ended" in told)
    assert time.monotonic() - began < 60
    wait_until_gone(noted_session(tmp_path), 60)


@contextmanager
def relay(socket_path: Path) -> Iterator[None]:
    """Stand between clients and the engine, so that for them it is gone with the socket and nobody else's ends."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(socket_path))
        listener.listen(64)

        def copy(source: socket.socket, target: socket.socket) -> None:
            with suppress(OSError):
                while (data := source.recv(65536)) and socket_path.exists():
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client = opened.enter_context(listener.accept()[0])
                    engine = opened.enter_context(socket.socket(socket.AF_UNIX))
                    engine.connect(engine_address().removeprefix("unix://"))
                    for pair in ((client, engine), (engine, client)):
                        threading.Thread(target=copy, args=pair, daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_an_engine_that_was_stopped_is_told(tmp_path: Path) -> None:
    """It takes its containers with it."""
    address = tmp_path / "engine"
    death = f"pathlib.Path({str(address)!r}).unlink(); docker('kill', container())"
    with relay(address):
        result = run_inside(
            tmp_path,
            death=death,
            DOCKER_HOST=f"unix://{address}",
            TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=engine_address().removeprefix("unix://"),
        )

    assert "Docker does not answer at unix://" in last_word(result)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_full_tmpfs_is_told_with_its_cure(tmp_path: Path, workers: tuple[str, ...]) -> None:
    # From a container of its own, for a container has no right to its own mounts; to what is there and a little more.
    shrink = (
        "process = docker('inspect', '--format', '{{.State.Pid}}', container()).strip(); "
        "there = '$(df --output=used -B1M /pgtmp | tail -n 1)'; "
        "docker('run', '--rm', '--privileged', '--pid=host', '--entrypoint=nsenter', 'postgres:18', "
        "'-t', process, '-m', 'sh', '-c', f'mount -o remount,size=$(({there} + 150))m /pgtmp')"
    )
    result = run_inside(
        tmp_path,
        *workers,
        death=shrink,
        statement="create table big as select repeat('x', 1000) from generate_series(1, 400000)",
    )

    assert re.search(
        r"^PostgreSQL 18\S*, in Docker, .*no room left: its data lie in memory, .*give the engine more\.$",
        last_word(result),
    )


def test_a_kept_database_outlives_the_run_and_its_reaper_until_it_is_told(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        "--keep-database",
        "-k",
        "death",
        death="run(postgres_empty, 'create table kept as select 42 as answer')",
        statement="select 1 / 0",
    )
    shown = re.search(r"^psql (\S+)  # test_suite.py::test_death$", result.stdout, re.MULTILINE)
    end = re.search(
        r"^The server runs on. To end it, and what it holds: (docker rm -f -v (\S+))$",
        result.stdout,
        re.MULTILINE,
    )
    assert shown is not None, result.stdout
    assert end is not None, result.stdout

    try:
        # Longer than the reaper waits for a run that was killed.
        time.sleep(15)
        with psycopg.connect(shown[1]) as connection:
            assert connection.execute("table kept").fetchall() == [(42,)]
        assert len(containers(noted_session(tmp_path))) == 1
    finally:
        subprocess.run(end[1].split(), check=True, stdout=subprocess.DEVNULL)
    assert containers(noted_session(tmp_path)) == set()


def test_a_failed_tests_report_has_the_containers_log(tmp_path: Path) -> None:
    result = run_inside(tmp_path, "-k", "death", death="pass", statement="select no_such_column")

    assert 'ERROR:  column "no_such_column" does not exist' in result.stdout.partition("server's log of")[2]
    assert "STATEMENT:  select no_such_column" in result.stdout
    assert re.search(
        r"^PostgreSQL 18\S* docker: ready in .* MB in memory at the end; nothing leaked$",
        result.stdout,
        re.MULTILINE,
    )


def test_a_replication_slot_is_known_for_its_own_test_among_tests_that_commit(tmp_path: Path) -> None:
    """The server does not remember when a slot was made; embedded servers have none."""
    suite = """
import psycopg, pytest

@pytest.mark.parametrize("number", range(30))
def test_it(postgres_committing, number):
    if number == 10:
        with psycopg.connect(postgres_committing.replace("+psycopg", "")) as connection:
            connection.execute("select pg_create_physical_replication_slot('lost')")
"""
    result = run_inside(tmp_path, suite=suite)

    assert re.findall(r"^ERROR test_suite.py::(\S+)", result.stdout, re.MULTILINE) == ["test_it[10]"], (
        result.stdout
    )
    assert "Left on the server: replication slot lost." in result.stdout
    assert "30 passed, 1 error" in result.stdout
