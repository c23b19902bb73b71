"""What the doctor finds on the machine: held ports, line endings, room, and environments beside the lock."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from devtools.doctor import data, engine, files, ports
from devtools.doctor.checkout import Checkout
from devtools.doctor.clock import told
from devtools.doctor.finding import Finding, State
from freshpg import start_ephemeral

from .doctoring import BARE_PYTHON, Skeleton
from .support import data_directory

NO_DOCKER = engine.Docker("unix:///nonexistent")
# What tells of processes on this machine.
PROCS = [
    *([Path("/proc")] if Path("/proc/net/tcp").exists() else []),
    *([Path("/nonexistent")] if shutil.which("lsof") else []),
]
LISTEN = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""
FORK = """
import os
listener.set_inheritable(True)
if os.fork() != 0:
    os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read()"])
"""


def port_of(name: str, port: int, checkout: Checkout) -> Finding:
    set_to = {**checkout.environment, "API_PORT": "1", "DB_PORT": "2", name: str(port)}
    found = ports.check(Checkout(checkout.root, set_to), lambda: NO_DOCKER)
    return next(each for each in found if each.name == f"ports/{name}")


@contextmanager
def listening(*command: str, cwd: Path) -> Iterator[tuple[int, int]]:
    """Run a program that listens on a port, and return its number and the port's."""
    with subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("proc", PROCS, ids=str)
@pytest.mark.parametrize("name", ["API_PORT", "DB_PORT"])
def test_program_that_holds_a_port_is_named_without_what_it_was_given(
    name: str, proc: Path, skeleton: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "PROC", proc)
    script = skeleton.write("other/listen.py", LISTEN)
    with listening(BARE_PYTHON, script.name, "--password=secret", cwd=script.parent) as (pid, port):
        found = port_of(name, port, skeleton.checkout)

    assert found.state is State.WRONG
    assert re.fullmatch(rf"{port} is held by python[\d.]* listen\.py \(process {pid}\)\.", found.finding)
    another = re.fullmatch(rf"Stop it \(`kill {pid}`\), or set {name}='(\d+)' in \.env\.", found.cure)
    assert another is not None, found.cure


@pytest.mark.parametrize("proc", PROCS, ids=str)
def test_program_that_came_by_its_input_has_no_other_name(
    proc: Path, skeleton: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "PROC", proc)
    listen = LISTEN.replace("sys.stdin.read()", "import time; time.sleep(60)")
    ours, theirs = os.pipe()
    os.write(theirs, listen.encode())
    os.close(theirs)
    with subprocess.Popen([BARE_PYTHON, "-"], stdin=ours, stdout=subprocess.PIPE, text=True) as process:
        os.close(ours)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            found = port_of("API_PORT", port, skeleton.checkout)
        finally:
            process.kill()

    assert re.fullmatch(rf"{port} is held by python[\d.]* \(process {process.pid}\)\.", found.finding)


@pytest.mark.skipif(not ports.PROC.exists(), reason="elsewhere nobody says who listens")
def test_connection_that_ended_on_a_port_is_no_program(skeleton: Skeleton) -> None:
    """The system hands out ports of that range, and keeps one for a minute after its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        port = client.getsockname()[1]
        accepted, _ = server.accept()
        client.close()
        accepted.close()
    found = port_of("DB_PORT", port, skeleton.checkout)

    assert found.state is State.WARNING
    assert found.finding.startswith(f"{port} cannot be had: a connection that was made here has it")
    assert f"{port}'" not in found.cure


def test_port_that_is_proposed_is_free(skeleton: Skeleton) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, contextlib.ExitStack() as stack:
        port = first.getsockname()[1]
        with contextlib.suppress(OSError):  # somebody else's is as good
            stack.enter_context(socket.create_server(("127.0.0.1", port + 1)))
        found = port_of("API_PORT", port, skeleton.checkout)

    proposed = re.search(r"API_PORT='(\d+)'", found.cure)
    assert proposed is not None
    assert int(proposed[1]) > port + 1
    socket.create_server(("127.0.0.1", int(proposed[1]))).close()


@pytest.mark.parametrize("proc", PROCS, ids=str)
def test_api_of_this_checkout_may_hold_its_port_but_not_the_databases(
    proc: Path, skeleton: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "PROC", proc)
    skeleton.write("backend/listen.py", LISTEN)
    with listening(BARE_PYTHON, "-m", "backend.listen", cwd=skeleton.root) as (pid, port):
        api, database = (port_of(name, port, skeleton.checkout) for name in ("API_PORT", "DB_PORT"))

    assert api.state is State.OK
    assert re.fullmatch(
        rf"{port} is held by python[\d.]* -m backend\.listen \(process {pid}\), of this checkout\.",
        api.finding,
    )
    assert database.state is State.WRONG


@pytest.mark.parametrize("proc", PROCS, ids=str)
def test_of_several_processes_with_the_socket_the_one_of_this_checkout_is_told(
    proc: Path, skeleton: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is with a server that forks, and the older one tells nothing of what it is."""
    monkeypatch.setattr(ports, "PROC", proc)
    skeleton.write("backend/listen.py", LISTEN.replace("print(", f"{FORK}print("))
    with listening(BARE_PYTHON, "-m", "backend.listen", cwd=skeleton.root) as (older, port):
        found = port_of("API_PORT", port, skeleton.checkout)

    assert found.state is State.OK
    assert "-m backend.listen (process " in found.finding
    assert f"(process {older})" not in found.finding


def test_port_of_every_address_is_held_too(skeleton: Skeleton) -> None:
    with socket.create_server(("", 0)) as everywhere:
        found = port_of("API_PORT", everywhere.getsockname()[1], skeleton.checkout)

    assert found.state is State.WRONG
    assert f"(process {os.getpid()})" in found.finding


def test_port_that_nobody_holds_is_free_and_stays_so(skeleton: Skeleton) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert port_of("API_PORT", port, skeleton.checkout).finding == f"{port} is free."
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1", "8000 "])
def test_port_that_is_none_is_wrong_and_not_shown(text: str, skeleton: Skeleton) -> None:
    skeleton.write(".env", f"API_PORT='{text}'\n")

    found = ports.check(skeleton.checkout, lambda: NO_DOCKER)[0]
    assert (found.state, found.finding) == (State.WRONG, "API_PORT is no port.")


def test_ports_are_composes_defaults_where_none_is_set(skeleton: Skeleton) -> None:
    found = " ".join(each["finding"] for each in skeleton.ask("ports/*"))

    # The kernel may have given the second to a client a moment ago.
    assert re.search(r"\b8000 (is|cannot be had)", found)
    assert re.search(r"\b54320 (is|cannot be had)", found)


def test_script_with_windows_line_endings_is_wrong(skeleton: Skeleton) -> None:
    skeleton.write("tools/start.sh", b"echo 1\r\n")
    skeleton.write("tools/no-suffix", b"#!/bin/sh\r\necho 1\r\n")
    skeleton.write("tools/text.md", b"no script\r\n")
    skeleton.write(".venv/bin/theirs", b"#!/bin/sh\r\n")

    assert skeleton.findings("files/line-endings", "wrong") == [
        "tools/no-suffix, tools/start.sh end their lines by CRLF, and so will not start."
    ]


def test_room_that_is_too_little_is_told_by_how_much_there_is(tmp_path: Path) -> None:
    more_than_any = 10**12

    plenty = files.room("disk/checkout", "the checkout", tmp_path, few=0, wanted=0)
    little = files.room("disk/checkout", "the checkout", tmp_path, few=0, wanted=more_than_any)
    none = files.room("disk/checkout", "the checkout", tmp_path, few=more_than_any, wanted=more_than_any)

    assert [each.state for each in (plenty, little, none)] == [State.OK, State.WARNING, State.WRONG]
    assert re.fullmatch(
        rf"Only [\d.]+ [GM]B free for the checkout, at {re.escape(str(tmp_path))}\.", little.finding
    )
    assert none.finding.endswith(": it is full.")


def test_machine_without_memory_for_files_is_told(tmp_path: Path) -> None:
    assert files.memory(tmp_path / "none").state is State.WARNING


@pytest.mark.parametrize(
    ("apart", "state", "says"),
    [
        (0, State.OK, "agrees with"),
        (1.9, State.OK, "agrees with"),
        (30, State.WARNING, "30 s ahead of"),
        (-600, State.WRONG, "10 min behind"),
        (7200, State.WRONG, "2 h ahead of"),
    ],
)
def test_clock_that_is_apart_is_told_by_how_far(apart: float, state: State, says: str) -> None:
    found = told("docker/clock", "The engine's clock", 1000 + apart, 1000, 1000)

    assert found.state is state
    assert says in found.finding


@pytest.mark.parametrize("theirs", [1000, 1015, 1030])
def test_answer_that_took_long_is_no_difference(theirs: float) -> None:
    assert told("docker/clock", "The engine's clock", theirs, 1000, 1030).state is State.OK


@pytest.fixture
def environment(skeleton: Skeleton) -> Path:
    """Give an environment in which there is nothing yet."""
    subprocess.run([BARE_PYTHON, "-m", "venv", "--without-pip", str(skeleton.root / ".venv")], check=True)
    return next((skeleton.root / ".venv").glob("lib/python3*/site-packages"))


def put(site: Path, name: str, number: str) -> None:
    (site / name).mkdir()
    place = site / f"{name}-{number}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n", encoding="utf-8"
    )


NEEDED = ("alembic", "fastapi", "psycopg", "pydantic_settings", "sqlalchemy")


def test_environment_that_is_not_what_the_lock_says_is_wrong(skeleton: Skeleton, environment: Path) -> None:
    lock = "".join(
        f"{name.replace('_', '-')}==1.0 \\\n    --hash=sha256:0\n" for name in (*NEEDED, "one", "two")
    )
    skeleton.write("requirements/development.txt", lock + "elsewhere==1 ; sys_platform == 'win32'\n")
    for name in NEEDED:
        put(environment, name, "1.0" if name != "psycopg" else "0.9")

    assert skeleton.findings("python/packages", "wrong") == [
        ".venv is not what requirements/development.txt says: it lacks one, two and has psycopg 0.9 for 1.0."
    ]

    put(environment, "one", "1.0")
    put(environment, "two", "1.0")
    put_anew = environment / "psycopg-0.9.dist-info"
    (put_anew / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: psycopg\nVersion: 1.0\n", encoding="utf-8"
    )
    put_anew.rename(environment / "psycopg-1.0.dist-info")
    assert skeleton.findings("python/packages", "ok") == [".venv has the 7 packages of the lock."]


def test_markers_of_the_lock_are_heeded(skeleton: Skeleton) -> None:
    """By the environment's own packaging: here, that of the environment which runs this test."""
    (skeleton.root / ".venv").symlink_to(sys.prefix)
    skeleton.write(
        "requirements/development.txt",
        f"sqlalchemy=={version('sqlalchemy')} ; python_full_version >= '3.11'\nnowhere==1 ; sys_platform == 'win32'\n"
        "here==1 ; sys_platform != 'win32'\n",
    )

    assert skeleton.findings("python/packages", "wrong") == [
        ".venv is not what requirements/development.txt says: it lacks here."
    ]


def test_environment_with_nox_alone_is_no_mistake(skeleton: Skeleton, environment: Path) -> None:
    (environment.parents[2] / "bin" / "nox").touch()

    (found,) = [each for each in skeleton.ask("python/packages") if each["name"] == "python/packages"]

    assert found["state"] == "warning"
    assert re.fullmatch(r"\.venv has 0 of the \d+ packages of the lock\.", found["finding"])
    assert found["cure"] == "`.venv/bin/nox -s venv`."


def test_environment_whose_python_is_gone_is_wrong(skeleton: Skeleton, environment: Path) -> None:
    python = environment.parents[2] / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")

    (found,) = [each for each in skeleton.ask("python/*") if each["state"] == "wrong"]

    assert found["finding"] == ".venv has no Python, or one that is gone from this machine."
    assert found["cure"].startswith("`rm -r .venv`, then `python3 -m venv .venv && ")


def test_environment_of_an_old_python_is_wrong(skeleton: Skeleton, environment: Path) -> None:
    config = environment.parents[2] / "pyvenv.cfg"
    config.write_text("home = /usr/bin\nversion = 3.9.18\n", encoding="utf-8")

    assert skeleton.findings("python/environment", "wrong") == [
        ".venv is of Python 3.9, and the project needs Python 3.11 to 3.14."
    ]


def test_data_of_another_major_version_are_wrong(skeleton: Skeleton) -> None:
    """The files are a real server's, which is run as `nox -s dev` runs it."""
    with start_ephemeral() as server:
        held = (data_directory(server.url) / "PG_VERSION").read_text(encoding="utf-8").strip()
        place = skeleton.root / ".dev" / "postgres-18"
        place.mkdir(parents=True)
        (place / "data").symlink_to(data_directory(server.url))

        for major, state in ((held, State.OK), (str(int(held) + 1), State.WRONG)):
            skeleton.write("compose.yaml", f"    image: postgres:{major}\n")
            renamed = place.with_name(f"postgres-{major}")
            place = place.rename(renamed)
            (found,) = data.check(skeleton.checkout)
            assert found.state is state

    assert (
        found.finding
        == f".dev/postgres-{int(held) + 1} holds data of PostgreSQL {held}, and what runs is {int(held) + 1}."
    )
    assert f"`rm -r .dev/postgres-{int(held) + 1}`" in found.cure


def test_data_that_no_command_uses_are_told(skeleton: Skeleton) -> None:
    skeleton.write(".dev/postgres-17/data/PG_VERSION", "17\n")
    skeleton.write(".dev/postgres-18/lock", "")

    assert skeleton.findings("database/directory", "warning") == [
        ".dev/postgres-17 is used by no command: they use postgres-18.",
        ".dev/postgres-18 holds no whole database.",
    ]


def test_cure_that_removes_names_no_other_data(skeleton: Skeleton) -> None:
    """Beside a copy of it, without quotes, the data themselves would go."""
    skeleton.write(".dev/postgres-18 copy/lock", "")
    skeleton.write(".dev/postgres-18/data/PG_VERSION", "18\n")
    loop = skeleton.root / ".dev" / "postgres-19" / "data"
    loop.parent.mkdir()
    loop.symlink_to(loop)

    assert [(each.state, each.cure) for each in data.check(skeleton.checkout)] == [
        (State.OK, ""),
        (State.WARNING, "Remove it (`rm -r '.dev/postgres-18 copy'`), and it is made anew."),
        (State.UNKNOWN, ""),
    ]
