"""What the doctor finds of Docker: no engine, one that may not be asked, and one of which a test says what it answers.

Real engines are in e2e; none of them is as old, or as far from the time, as these have to be.
"""

import json
import os
import re
import shlex
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from tempfile import TemporaryDirectory

import pytest

from devtools.doctor import containers, engine, project
from devtools.doctor.finding import Finding, State, unknown

from .doctoring import Skeleton

SECRET = "do-not-print-this"


@contextmanager
def answering(*, apart: float = 0, version: str = "28.0.0") -> Iterator[str]:
    """Run an engine of this version, whose clock is as many seconds ahead, and return its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(b"")

        def do_GET(self) -> None:
            info = {"ServerVersion": version, "SystemTime": now(apart)}
            self.answer(b"OK" if self.path.endswith("_ping") else json.dumps(info).encode())

        def answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Api-Version", "1.47")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def address_string(self) -> str:
            return "a socket"

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base's name
            pass

    # A socket's path may be no longer than some hundred bytes.
    with TemporaryDirectory() as place, ThreadingUnixStreamServer(f"{place}/s", Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"unix://{place}/s"
        finally:
            server.shutdown()


def now(apart: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=apart)).isoformat()


def look(skeleton: Skeleton, address: str, *, path: str | None = None) -> dict[str, Finding]:
    skeleton.environment["DOCKER_HOST"] = address
    if path is not None:
        skeleton.environment["PATH"] = path
    found = engine.check(lambda: engine.look(skeleton.checkout))
    return {each.name.partition("/")[2]: each for each in found}


@pytest.fixture(params=["by the command, if it is here", "by the socket"])
def path(request: pytest.FixtureRequest) -> str:
    return os.environ["PATH"] if "command" in request.param else ""


@pytest.mark.parametrize(
    ("apart", "state", "says"),
    [
        (0, State.OK, "agrees with this machine's"),
        (50, State.WARNING, r"is \d+ s ahead of this machine's"),
        (-36000, State.WRONG, "is 10 h behind this machine's"),
    ],
)
def test_engine_whose_clock_is_apart_is_found(
    apart: int, state: State, says: str, path: str, skeleton: Skeleton
) -> None:
    with answering(apart=apart) as address:
        found = look(skeleton, address, path=path)

    assert found["clock"].state is state
    assert re.fullmatch(rf"The engine's clock {says}\.", found["clock"].finding)
    assert (found["clock"].cure != "") == (state is not State.OK)


def test_engine_that_is_too_old_is_wrong(path: str, skeleton: Skeleton) -> None:
    with answering(version="24.0.9") as address:
        found = look(skeleton, address, path=path)

    assert found["engine"].state is State.WRONG
    assert found["engine"].finding == "Docker's engine is 24.0.9, and compose.yaml needs 25."


def test_engine_without_the_docker_command_is_found_by_its_socket(skeleton: Skeleton) -> None:
    with answering() as address:
        found = look(skeleton, address, path="")

    assert found["command"].state is State.WARNING
    assert found["engine"].finding == f"Engine 28.0.0 answers at {address}."
    assert found["compose"].state is State.UNKNOWN


def test_dev_container_needs_neither_command_nor_engine(skeleton: Skeleton) -> None:
    found = skeleton.ask("docker/*", NOX_DEFAULT_VENV_BACKEND="none", PATH="")

    assert {each["name"]: each["state"] for each in found} == {
        "docker/command": "ok", "docker/engine": "ok", "docker/compose": "ok", "docker/clock": "unknown"
    }  # fmt: skip


@pytest.fixture
def command(tmp_path: Path) -> Callable[[str], str]:
    """Give a PATH with a docker command that says of itself what it is told to."""

    def make(compose: str) -> str:
        plugins = [{"Name": "buildx", "Version": "v0.1"}, {"Name": "compose", "Version": compose}][
            : 2 if compose else 1
        ]
        info = {
            "ServerVersion": "28.0.0",
            "SystemTime": now(),
            "ClientInfo": {"Version": "28.0.0", "Plugins": plugins},
        }
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f"#!/bin/sh\n[ \"$1\" = info ] && cat <<'END'\n{json.dumps(info)}\nEND\n", encoding="utf-8"
        )
        program.chmod(0o755)
        return f"{program.parent}{os.pathsep}{os.environ['PATH']}"

    return make


@pytest.mark.parametrize(
    ("version", "state", "finding"),
    [
        ("v2.40.3-desktop.1", State.OK, "Compose 2.40.3-desktop.1."),
        ("2.29.7", State.WARNING, "Compose is 2.29.7, and the dev container needs 2.30."),
        ("2.9.0", State.WRONG, "Compose is 2.9.0, and compose.yaml needs 2.20.2."),
        ("", State.WARNING, "Docker is here without its compose plugin."),
    ],
)
def test_compose_is_told_by_its_version(
    version: str, state: State, finding: str, command: Callable[[str], str], skeleton: Skeleton
) -> None:
    found = look(skeleton, "unix:///nonexistent", path=command(version))["compose"]

    assert (found.state, found.finding) == (state, finding)
    assert (found.cure != "") == (state is not State.OK)


def test_engine_that_this_user_may_not_ask_is_told_with_who_may(skeleton: Skeleton) -> None:
    with TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}/s")
        listener.listen()
        Path(place, "s").chmod(0)
        before = os.geteuid()
        try:
            if before == 0:
                os.seteuid(65534)
            found = look(skeleton, f"unix://{place}/s", path="")
        finally:
            os.seteuid(before)

    assert found["engine"].state is State.WARNING
    assert found["engine"].finding == f"Docker's engine at unix://{place}/s may not be asked by this user."
    assert found["engine"].cure.startswith("`sudo usermod -aG docker $USER`, then log in anew")


def test_engine_that_is_not_there_is_no_mistake(path: str, skeleton: Skeleton) -> None:
    found = look(skeleton, "unix:///nonexistent/docker.sock", path=path)

    assert found["engine"].state is State.WARNING
    assert found["engine"].finding == "Docker's engine does not answer at unix:///nonexistent/docker.sock."
    assert "take an embedded PostgreSQL" in found["engine"].cure
    assert found["clock"].state is State.UNKNOWN


def test_who_logs_in_to_an_engine_far_away_is_not_shown(path: str, skeleton: Skeleton) -> None:
    found = look(skeleton, f"tcp://me:{SECRET}@127.0.0.1:1", path=path)

    assert "tcp://127.0.0.1:1" in found["engine"].finding
    assert SECRET not in str(found)


def test_who_logs_in_is_not_shown_of_the_tests_way_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://me:{SECRET}@127.0.0.1:1")

    found = list(containers.examine())

    assert {each.finding for each in found} == {
        "Docker does not answer at tcp://127.0.0.1:1, so the tests take an embedded PostgreSQL."
    }


def test_engine_that_takes_a_connection_and_says_nothing_is_left_in_time(
    path: str, skeleton: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ANSWER_SECONDS", 0.3)
    with TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{place}/s")
        silent.listen()

        found = look(skeleton, f"unix://{place}/s", path=path)

    assert found["engine"].state is State.WARNING
    assert "does not answer" in found["engine"].finding
    # Whether it is here is known without the engine.
    assert found["compose"].state is (State.OK if shutil.which("docker", path=path) else State.UNKNOWN)
    assert found["clock"].state is State.UNKNOWN


def test_command_that_hangs_is_not_said_to_lack_compose(
    tmp_path: Path, skeleton: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ANSWER_SECONDS", 0.3)
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\n[ "$1" = info ] && sleep 60\nexit 1\n', encoding="utf-8")
    program.chmod(0o755)

    found = look(skeleton, "unix:///nonexistent", path=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert found["engine"].finding == "Docker's engine does not answer in time at unix:///nonexistent."
    assert found["compose"] == unknown("docker/compose", "The docker command does not answer in time.")


def test_user_that_a_shell_would_take_apart_is_quoted_in_the_cure(tmp_path: Path, skeleton: Skeleton) -> None:
    model = {"name": "x", "services": {"db": {"environment": {"POSTGRES_USER": "o'x y"}}}}
    refuses_over_tcp = 'case "$*" in *hostname*) echo "authentication failed" >&2; exit 2; esac'
    listed = json.dumps({"ID": "1", "Service": "db", "State": "running"})
    program = tmp_path / "docker"
    program.write_text(
        f"#!/bin/sh\n{refuses_over_tcp}\n[ $2 = ps ] && echo '{listed}'\n[ $1 = image ] && echo '[]'\nexit 0\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    skeleton.environment["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    docker = engine.Docker("unix:///s", {"ServerVersion": "28"}, has_command=True, compose="2.40")

    found = project.check(skeleton.checkout, lambda: docker, lambda: project.Project(model))

    (password,) = [each for each in found if each.name == "compose/password"]
    assert password.state is State.WRONG
    command = re.search("`(docker compose exec [^`]+)`", password.cure)
    assert command is not None
    assert shlex.split(command[1])[4:7] == ["psql", "-U", "o'x y"]


@pytest.mark.parametrize("hanging", ["config", "ps"])
def test_compose_that_hangs_is_not_said_to_find_a_mistake(
    hanging: str, tmp_path: Path, skeleton: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "_SECONDS", 0.3)
    program = tmp_path / "docker"
    program.write_text(
        f'#!/bin/sh\n[ "$2" = {hanging} ] && sleep 60\necho \'{{"name": "x"}}\'\n', encoding="utf-8"
    )
    program.chmod(0o755)
    skeleton.environment["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    docker = engine.Docker("unix:///s", {"ServerVersion": "28"}, has_command=True, compose="2.40")

    read = project.read(skeleton.checkout, docker)
    found = {each.name: each for each in project.check(skeleton.checkout, lambda: docker, lambda: read)}

    files = found.pop("compose/files")
    assert files.state is (State.UNKNOWN if hanging == "config" else State.OK)
    assert {each.finding for each in found.values()} == {"Compose did not answer within 15 s."}
    assert {each.state for each in found.values()} == {State.UNKNOWN}
