"""The doctor's checks of the machine and of the checkout. The docker command is a script that a test writes."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from backend import config
from backend.config import ROOT
from backend.tests.loopback import free_port
from devtools.doctor import (
    check_compose,
    check_disk,
    check_docker,
    check_env_file,
    check_python,
    docker_cli,
)
from devtools.doctor.check_ports import check_port
from devtools.doctor.docker_cli import Docker, Machine, examine
from devtools.doctor.finding import Finding, State

OK, WARNING, WRONG = State.OK, State.WARNING, State.WRONG
INFO = {"ServerVersion": "28.0.0", "ClientInfo": {"Plugins": [{"Name": "compose", "Version": "2.40.3"}]}}
DOCKER = Docker("default", "unix:///nonexistent", INFO)
WITHOUT_DOCKER = Machine(ROOT, Docker())
SERVICES = {"db": {"image": "postgres:18"}}
PROJECT = {"name": "mine", "services": SERVICES, "volumes": {"db": {"name": "mine_db"}}}
SQLALCHEMY = version("sqlalchemy")
FakeDocker = Callable[..., None]


@pytest.fixture
def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """Put a docker command on PATH that prints a text if its arguments contain a word."""

    def write(answers: dict[str, str], otherwise: str = "exit 1") -> None:
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir(exist_ok=True)
        for number, text in enumerate(answers.values()):
            (program.parent / str(number)).write_text(text, encoding="utf-8")
        cases = [f'*"{word}"*) exec cat {program.parent}/{n};;' for n, word in enumerate(answers)]
        lines = ["#!/bin/sh", 'case "$*" in', *cases, "esac", otherwise]
        program.write_text("\n".join(lines), encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return write


def by_name(found: Iterable[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in found}


@pytest.mark.parametrize(
    ("docker", "state", "says"),
    [
        (DOCKER, OK, "Docker Engine 28.0.0 answers at unix:///nonexistent."),
        (Docker("x", "tcp://x:1", {"ServerVersion": "24.0.9"}), WRONG, "24.0.9; compose.yaml needs 25."),
        (Docker("x", "tcp://x:1", {"ServerVersion": "dev"}), OK, "Docker Engine dev answers at tcp://x:1."),
        (Docker("no", None), WRONG, "There is no Docker context 'no', which DOCKER_CONTEXT names."),
        (Docker("x", "tcp://x:1"), WARNING, "does not answer at tcp://x:1, which the context 'x' names."),
    ],
)
def test_engine_is_reported(docker: Docker, state: State, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", docker.context)

    found = by_name(check_docker.check(Machine(ROOT, docker)))["engine"]
    assert found.state is state
    assert says in found.finding


def test_missing_docker_or_compose_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_docker, "CONTAINER", tmp_path / "none")
    (docker,) = check_docker.check(WITHOUT_DOCKER)
    *_, compose = check_docker.check(Machine(ROOT, Docker("x", "", {"ServerVersion": "28.0"})))

    for found in (docker, compose):
        assert found.state is WARNING
        assert "https://docs.docker.com" in found.cure


def test_engine_is_found_through_the_docker_command(fake_docker: FakeDocker, tmp_path: Path) -> None:
    fake_docker({"context show": "far\n", "inspect": "ssh://me:secret@far\n", "info": json.dumps(INFO)})

    docker = examine(tmp_path).docker
    assert (docker.context, docker.address, docker.compose) == ("far", "ssh://far", "2.40.3")


def test_docker_that_hangs_is_abandoned(
    tmp_path: Path, fake_docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_docker({"context": "x\n"}, otherwise="exec sleep 30")
    monkeypatch.setattr(docker_cli, "ANSWER_SECONDS", 3)

    assert examine(tmp_path) == Machine(tmp_path, Docker("x", "x"))


def composed(
    fake_docker: FakeDocker, answers: dict[str, str], project: dict[str, Any] = PROJECT
) -> dict[str, Finding]:
    fake_docker({"compose ps": "", "ps --all": "", "volume inspect": "[]"} | answers)
    return by_name(check_compose.check(Machine(ROOT, DOCKER, project)))


@pytest.mark.parametrize(
    ("state", "health", "code", "expected"),
    [
        ("running", "healthy", 0, OK),
        ("running", "unhealthy", 0, WRONG),
        ("exited", "", 1, WRONG),
        ("exited", "", 143, OK),
    ],
)
def test_failed_service_is_wrong(
    state: str, health: str, code: int, expected: State, fake_docker: FakeDocker
) -> None:
    service = {"Service": "db", "State": state, "Health": health, "ExitCode": code}

    found = composed(fake_docker, {"compose ps": json.dumps(service)})["services"]
    assert found.state is expected
    assert found.cure == ("`docker compose logs db` says why." if expected is WRONG else "")


def test_another_checkout_with_the_same_project_name_is_wrong(fake_docker: FakeDocker) -> None:
    found = composed(fake_docker, {"ps --all": f"{ROOT}\n/home/me/other\n\n"})["project"]

    assert found.state is WRONG
    assert found.finding.startswith("Another checkout, /home/me/other, has containers")


@pytest.mark.parametrize(
    ("versions", "state", "says"),
    [
        ("18\n", OK, "mine_db is empty"),
        ("18\n18\n", OK, "has data of PostgreSQL 18"),
        ("18\n16\n", WRONG, "`nox -s db_upgrade`"),
        ("18\n19\n", WRONG, "Dump them"),
    ],
)
def test_volume_of_another_version_is_wrong(
    versions: str, state: State, says: str, fake_docker: FakeDocker
) -> None:
    found = composed(fake_docker, {"run --rm": versions})["volume"]

    assert found.state is state
    assert says in found.finding + found.cure


@pytest.mark.parametrize(
    ("answers", "says", "cure"),
    [
        ({"--project-name doctor": ""}, "cannot derive a project name", "Set COMPOSE_PROJECT_NAME='procore'"),
        ({}, "cannot read compose.yaml", "`docker compose config --quiet` says where."),
    ],
)
def test_files_that_compose_refuses_are_wrong(
    answers: dict[str, str], says: str, cure: str, fake_docker: FakeDocker
) -> None:
    found = composed(fake_docker, answers, project={})["files"]

    assert found.state is WRONG
    assert says in found.finding
    assert found.cure.startswith(cure)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory whose `.env` and `backend/.env` are read as the project's; the environment has no settings."""
    (tmp_path / "backend").mkdir()
    (tmp_path / "compose.yaml").write_text("${POSTGRES_DB:-x}", encoding="utf-8")
    monkeypatch.setattr(config, "ENV_FILES", (tmp_path / "backend" / ".env", tmp_path / ".env"))
    for name in config.Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def faults(checkout: Path, text: str, docker: Docker = WITHOUT_DOCKER.docker) -> list[Finding]:
    """Return the findings about this `.env` that are not ok."""
    (checkout / ".env").write_text(text, encoding="utf-8")
    return [each for each in check_env_file.check(Machine(checkout, docker)) if each.state is not OK]


def test_unchanged_example_is_ok(checkout: Path) -> None:
    assert faults(checkout, (ROOT / ".env.example").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("API_TOKNE", "API_TOKNE, which is not a setting. Write API_TOKEN, if that is meant."),
        ("api_port", "api_port, which is not a setting. Write API_PORT, if that is meant."),
        ("COMPOSE_PROJECTNAME", "is not a setting. Write COMPOSE_PROJECT_NAME, if that is meant."),
        ("TEST_DATABASE_URL", "but that is only read from the environment. Export it in your shell."),
        ("QUITE_ELSE", "a name that is not a setting. Remove it; .env.example has every setting."),
    ],
)
def test_name_that_is_not_a_setting_is_a_warning(name: str, says: str, checkout: Path) -> None:
    (found,) = faults(checkout, f"{name}='1'\n")

    assert (found.name, found.state) == ("names", WARNING)
    assert f"{found.finding} {found.cure}".endswith(says)


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("A='1'\nAPI_PORT='1\n", "files", "line 2, cannot be read"),
        ("API_PORT='http'\nDB_PORT='0'\n", "values", "DB_PORT"),
    ],
)
def test_mistake_that_stops_every_command_is_wrong(text: str, name: str, says: str, checkout: Path) -> None:
    found = [each for each in faults(checkout, text) if each.state is WRONG]

    assert {each.name for each in found} == {name}
    assert any(says in each.finding for each in found)


def test_value_that_compose_reads_differently_is_a_warning(checkout: Path, fake_docker: FakeDocker) -> None:
    fake_docker({"config --environment": "POSTGRES_USER=me\nPOSTGRES_PASSWORD=a\n"})
    (checkout / "backend" / ".env").write_text("POSTGRES_DB='x'\nAPI_TOKEN=''\n", encoding="utf-8")

    found = faults(checkout, "POSTGRES_USER='me'\nPOSTGRES_PASSWORD=\"a$b\"\n", DOCKER)
    assert [each.finding for each in found] == [
        "backend/.env has POSTGRES_DB, but Compose reads only .env.",
        "Compose and Python read different values of POSTGRES_PASSWORD in .env.",
    ]


# A child process listens, like uvicorn's workers.
LISTEN = """
import socket, subprocess, sys
if sys.argv[1] == "parent":
    subprocess.run([sys.executable, "-c", open("backend/listen.py").read(), "child"])
else:
    server = socket.create_server(("127.0.0.1", int(sys.stdin.readline())))
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def listening(directory: Path, *command: str) -> Iterator[tuple[int, int]]:
    """Run a program that listens, and yield its process id and its port."""
    (directory / "backend").mkdir()
    (directory / "backend" / "__init__.py").touch()
    (directory / "backend" / "listen.py").write_text(LISTEN, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, *command], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = free_port()
        print(port, file=process.stdin, flush=True)
        assert process.stdout.readline() == "\n"
        yield process.pid, port


def test_port_of_another_process_is_wrong_and_a_free_one_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_PORT", raising=False)
    with (
        listening(tmp_path, "backend/listen.py", "--password=secret") as (pid, port),
        socket.socket() as client,
    ):
        # A client's port refuses connections, but no server can have it.
        with suppress(OSError):
            client.bind(("127.0.0.1", port + 1))
        found = check_port(WITHOUT_DOCKER, "API_PORT", port, "api")

    assert re.fullmatch(rf"{port} is in use by python[\d.]* listen\.py \(process {pid}\)\.", found.finding)
    proposed = re.fullmatch(rf"Stop it \(`kill {pid}`\), or set API_PORT='(\d+)' in \.env\.", found.cure)
    assert proposed is not None
    assert int(proposed[1]) > port + 1
    socket.create_server(("127.0.0.1", int(proposed[1]))).close()


def test_port_of_a_clients_connection_is_wrong(unused_port: int) -> None:
    found = check_port(WITHOUT_DOCKER, "DB_PORT", unused_port, "db")

    assert (found.state, found.finding) == (WRONG, f"{unused_port} is in use by a client's connection.")
    assert found.cure.startswith("Try again in a minute, or set DB_PORT=")


def test_value_from_the_environment_is_to_be_changed_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("API_PORT", str(port))
        found = check_port(WITHOUT_DOCKER, "API_PORT", port, "api")

    assert found.cure.endswith("' in the environment.")


def test_port_of_this_checkouts_api_is_ok_but_not_for_the_database(tmp_path: Path) -> None:
    with listening(tmp_path, "-m", "backend.listen", "parent") as (pid, port):
        api, database = (check_port(Machine(tmp_path, Docker()), "X", port, each) for each in ("api", "db"))

    assert (api.state, database.state) == (OK, WRONG)
    assert api.finding == f"{port} is in use by python -m backend.listen (process {pid}), of this checkout."


@pytest.mark.parametrize(
    ("labels", "state", "says"),
    [
        (f"db\t{ROOT}", OK, "is in use by Compose's db (container c), of this checkout."),
        ("db\t/other", WRONG, "is in use by the container c of /other. `docker stop c`, or set DB_PORT="),
        ("\t", WRONG, "is in use by the container c. `docker stop c`, or set DB_PORT="),
    ],
)
def test_container_that_publishes_a_port_is_named(
    labels: str, state: State, says: str, fake_docker: FakeDocker
) -> None:
    fake_docker({"ps --filter publish=54320": f"c\t{labels}\n"})

    found = check_port(Machine(ROOT, DOCKER), "DB_PORT", 54320, "db")
    assert found.state is state
    assert says in f"{found.finding} {found.cure}"


def test_port_is_in_use_while_a_process_listens_on_every_address() -> None:
    with socket.create_server(("", port := free_port())):
        held = check_port(WITHOUT_DOCKER, "API_PORT", port, "api")

    assert f"(process {os.getpid()})" in held.finding
    assert check_port(WITHOUT_DOCKER, "API_PORT", port, "api").finding == f"{port} is free."


def test_disk_space_is_compared_with_the_limits(tmp_path: Path) -> None:
    for least, enough, state in ((0, 0, OK), (0, 10**12, WARNING), (10**12, 10**12, WRONG)):
        found = check_disk.space("checkout", "for the checkout", tmp_path, least=least, enough=enough)
        assert found.state is state
        assert found.finding.endswith(f" GB free for the checkout, at {tmp_path}.")


@pytest.mark.parametrize(
    ("lock", "state", "says"),
    [
        (f"sqlalchemy=={SQLALCHEMY} ; python_version >= '3.11'\n", OK, "has the 1 packages of the lock."),
        ("absent==1 ; sys_platform == 'win32'\n", OK, "has the 0 packages of the lock."),
        ("absent==1.0 \\\n    --hash=sha256:0\n", WRONG, "it lacks absent."),
        ("sqlalchemy==0.1\n", WRONG, f"it has sqlalchemy {SQLALCHEMY} instead of 0.1."),
    ],
)
def test_environment_is_compared_with_the_lock(lock: str, state: State, says: str) -> None:
    found = check_python.compare(lock, ".venv")

    assert found.state is state
    assert says in found.finding
    assert found.cure.startswith("`rm -f .venv/.lock-digest`" if state is WRONG else "")
