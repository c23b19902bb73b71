"""What takes long to show: starts by the hundred, disks that are full, engines and reapers that fail, two checkouts."""

import gc
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from freshpg import choose, start_ephemeral
from freshpg.owner import this_process
from freshpg.reaper import OWNER_LABEL, REAPER_PREFIX

from .checkout import Checkout, wait_until
from .test_containers import IMAGE, PLUGIN, ROOT, containers, note_session, noted_session, wait_until_gone

STARTS = 200

# Root of a namespace of its own, where tmpfs of any size can be mounted and nobody else sees it.
PRIVATE_MOUNTS = ("unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), "--mount")
mounts = pytest.mark.skipif(
    subprocess.run([*PRIVATE_MOUNTS, "true"], capture_output=True, check=False).returncode != 0,
    reason="no file system can be mounted here (where AppArmor forbids it: "
    "sysctl kernel.apparmor_restrict_unprivileged_userns=0)",
)

START_IN_PRIVATE = """
from freshpg import PostgresUnavailable, start_ephemeral
import psycopg
try:
    with start_ephemeral() as server, psycopg.connect(server.url) as connection:
        print(connection.execute("show data_directory").fetchone()[0])
except PostgresUnavailable as error:
    print(error)
"""

STARTED_IN_DOCKER = """
import sys
from freshpg import choose
from testcontainers.core.labels import SESSION_ID
server = choose("docker").start()
print(SESSION_ID, *server.notes, flush=True)
sys.stdin.read()
"""


def servers() -> set[int]:
    """Return the processes that are PostgreSQL's or a keeper of one, whoever's they are."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    words = ("/postgres -c ", "keeper.keeper", "postgres: ")
    return {int(line.split()[0]) for line in listed.splitlines() if any(word in line for word in words)}


def test_many_starts_in_a_row_leak_nothing() -> None:
    def descriptors() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    start_ephemeral().stop()
    gc.collect()
    before = descriptors()
    places, pids = set(), set()
    for _ in range(STARTS):
        with start_ephemeral() as server, psycopg.connect(server.url) as connection:
            row = connection.execute("select current_setting('data_directory'), pg_backend_pid()").fetchone()
            assert row is not None
            data = Path(row[0])
            places.add(data.parent)
            pids.add(int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0]))

    assert len(places) == STARTS
    gc.collect()
    assert descriptors() <= before
    assert not [place for place in places if place.exists()]
    assert not pids & servers()
    children = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    ).stdout
    assert "keeper" not in children


def in_private(mounts: str, temporary: Path) -> str:
    """Start a server where these are mounted; return where its data are, or why it did not start."""
    command = f"{mounts} && exec {sys.executable} -c '{START_IN_PRIVATE}'"
    result = subprocess.run(
        [*PRIVATE_MOUNTS, "sh", "-c", command],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(temporary / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


@pytest.fixture
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


SMALL_MEMORY = "mount -t tmpfs -o size=20m tmpfs /dev/shm"


@mounts
def test_without_room_in_memory_the_data_are_on_disk(temporary: Path) -> None:
    assert Path(in_private(SMALL_MEMORY, temporary)).is_relative_to(temporary)
    assert [path.name for path in temporary.iterdir()] in ([], ["cache"])


@mounts
def test_a_full_disk_is_told_as_what_it_is(temporary: Path) -> None:
    """Once when the data are initialised, and once when they grow from a seed."""
    (temporary / "cache").mkdir()
    (temporary / "full").mkdir()
    mount = f"mount -t tmpfs -o size=8m,mode=755 tmpfs {temporary}/full"
    full = f"{SMALL_MEMORY} && {mount} && export TMPDIR={temporary}/full"

    told = in_private(full, temporary)
    assert told.startswith(
        "The embedded PostgreSQL did not start: initdb failed with status 1. Its log ends:"
    )
    assert "No space left on device" in told
    assert in_private(SMALL_MEMORY, temporary).startswith(str(temporary))
    assert list((temporary / "cache").rglob("*.seed"))

    told = in_private(full, temporary)
    assert told.startswith("The embedded PostgreSQL did not start: No space left on device in ")
    assert len(told.splitlines()) == 1


@mounts
@pytest.mark.parametrize("options", ["size=4m", "ro"])
def test_a_cache_that_is_full_or_read_only_is_no_hindrance(temporary: Path, options: str) -> None:
    (temporary / "cache").mkdir()
    mount = f"mount -t tmpfs -o {options} tmpfs {temporary}/cache"

    told = in_private(f"{mount} && {SMALL_MEMORY}", temporary)

    assert Path(told).is_relative_to(temporary), told


MUTE = "import socket; s = socket.create_server(('', 8080)); held = [s.accept() for _ in iter(int, 1)]"


@pytest.fixture
def mute_reaper(tmp_path: Path) -> Iterator[str]:
    """Return an image that listens in the reaper's place, and answers nothing."""
    name = "procore-e2e-mute:1"
    entry = json.dumps(["python", "-c", MUTE])
    (tmp_path / "Dockerfile").write_text(f"FROM python:3.14-slim\nENTRYPOINT {entry}\n", encoding="utf-8")
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, tmp_path], check=True, stdout=subprocess.DEVNULL
    )
    yield name
    subprocess.run(["docker", "rmi", "--force", name], check=True, stdout=subprocess.DEVNULL)


def test_a_reaper_that_does_not_answer_is_told_and_the_next_start_does_its_work(mute_reaper: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTED_IN_DOCKER],
        cwd=ROOT,
        env=os.environ | {"RYUK_CONTAINER_IMAGE": mute_reaper},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        session, _, note = owner.stdout.readline().strip().partition(" ")
        assert note == (
            "No reaper for containers (it did not answer within 20 s): a run that is killed leaves its container until "
            "the next one that uses Docker here removes it."
        )
        assert len(containers(session)) == 1
        # Beside a living owner it stays.
        choose("docker").start().stop()
        assert len(containers(session)) == 1
        owner.kill()
        owner.wait()
        assert owner.stderr is not None
        assert owner.stderr.read().endswith(f"{note}\n")

    assert len(containers(session)) == 1
    choose("docker").start().stop()
    assert containers(session) == set()


def test_a_container_of_somebody_else_is_never_removed() -> None:
    """One without our mark, one of another machine, and one whose mark says nothing."""
    marks = [
        "another=label",
        f"{OWNER_LABEL}=another-boot/1 1 1",
        f"{OWNER_LABEL}=",
        f"{OWNER_LABEL}=nonsense",
    ]
    made = [
        subprocess.run(
            ["docker", "create", "--label", mark, IMAGE], capture_output=True, text=True, check=True
        ).stdout.strip()
        for mark in marks
    ]
    try:
        choose("docker").start().stop()
        listed = subprocess.run(
            ["docker", "ps", "-aq", "--no-trunc"], capture_output=True, text=True, check=True
        )
        assert set(made) <= set(listed.stdout.split())
    finally:
        subprocess.run(["docker", "rm", "--volumes", *made], check=True, stdout=subprocess.DEVNULL)


def test_a_reaper_that_never_ran_is_removed_and_one_that_runs_is_not() -> None:
    """A run may be killed between the making of its reaper and the start; a reaper that runs outlives its run."""
    gone = f"{OWNER_LABEL}={this_process().machine} {os.getpid()} before-this-process"
    names = [f"{REAPER_PREFIX}{secrets.token_hex(4)}" for _ in range(2)]
    for name in names:
        subprocess.run(
            ["docker", "create", "--name", name, "--label", gone, IMAGE, "sleep", "60"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    subprocess.run(["docker", "start", names[1]], check=True, stdout=subprocess.DEVNULL)
    try:
        with choose("docker").start():
            listed = subprocess.run(
                ["docker", "ps", "-a", "--format", f'{{{{.Names}}}} {{{{.Label "{OWNER_LABEL}"}}}}'],
                capture_output=True, text=True, check=True,
            ).stdout.splitlines()  # fmt: skip
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", *names], check=False, capture_output=True)

    assert [line for line in listed if line.startswith(tuple(names))] == [
        f"{names[1]} {gone.partition('=')[2]}"
    ]
    assert [
        line for line in listed if re.match(rf"{REAPER_PREFIX}\S+ {re.escape(str(this_process()))}$", line)
    ]


WAITING = """
import os, pathlib, psycopg, subprocess, time
def test_wait(postgres_clone, postgres_server):
    pathlib.Path("waiting").touch()
    if pathlib.Path("kill").exists():
        session = pathlib.Path("session").read_text()
        names = subprocess.run(
            ["docker", "ps", "-q", "--filter", f"label=org.testcontainers.session-id={session}"],
            capture_output=True, text=True, check=True).stdout.split()
        subprocess.run(["docker", "kill", *names], check=True, capture_output=True)
        psycopg.connect(postgres_server.url.replace("+psycopg", ""), connect_timeout=2)
    time.sleep(60)
def test_next(postgres_clone): pass
"""


def inner_run(place: Path) -> "subprocess.Popen[bytes]":
    note_session(place)
    (place / "test_suite.py").write_text(WAITING, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:randomly", "--postgres", "docker"],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )


def test_a_run_whose_container_is_killed_ends_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "kill").touch()
    run = inner_run(tmp_path)

    assert run.wait(90) == pytest.ExitCode.TESTS_FAILED
    assert containers(noted_session(tmp_path)) == set()


@pytest.mark.parametrize("end", ["ctrl-c twice", "kill"])
def test_a_run_that_is_ended_leaves_no_container(tmp_path: Path, end: str) -> None:
    run = inner_run(tmp_path)
    wait_until((tmp_path / "waiting").exists, seconds=60, what="the test waits")
    assert len(containers(noted_session(tmp_path))) == 2
    if end == "kill":
        run.kill()
    else:
        run.send_signal(signal.SIGINT)
        time.sleep(0.1)
        run.send_signal(signal.SIGINT)
    run.wait(30)

    # A reaper waits 10 s for its killed run to come back.
    wait_until_gone(noted_session(tmp_path), 60)


def test_two_checkouts_test_at_once_and_share_what_is_cached(
    make_checkout: Callable[[], Checkout], temporary: Path
) -> None:
    checkouts = [make_checkout(), make_checkout()]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--postgres",
        "embedded",
        "-n",
        "2",
        "backend/tests/test_models.py",
    ]
    (temporary / "cache").mkdir()
    runs = [
        subprocess.Popen(
            command,
            cwd=each.path,
            env=each.environment | {"XDG_CACHE_HOME": str(temporary / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for each in checkouts
    ]
    told = [run.communicate(timeout=200)[0] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], told
    assert not [text for text in told if "The cached" in text]
    kinds = sorted(
        path.name.partition("-")[0] for path in (temporary / "cache" / "postgres-for-tests").iterdir()
    )
    assert kinds == ["bare", "template"]
