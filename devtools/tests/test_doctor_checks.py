"""What the doctor's checks find on the machine and in the checkout. Docker's command is a script that a test writes."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from backend import config
from backend.config import ROOT
from devtools.doctor import (
    check_compose,
    check_disk,
    check_docker,
    check_env_file,
    check_environment,
    check_ports,
    docker_cli,
)
from devtools.doctor.docker_cli import Docker, Machine, examine
from devtools.doctor.finding import Finding, State


PLUGINS = [{"Name": "compose", "Version": "2.40.3"}]
INFO = {"ServerVersion": "28.0.0", "ClientInfo": {"Version": "28.0.0", "Plugins": PLUGINS}}
DOCKER = Docker("default", "unix:///nonexistent", INFO)
PROJECT = {
    "name": "mine",
    "services": {"db": {"image": "postgres:18"}},
    "volumes": {"db": {"name": "mine_db"}},
}
FakeDocker = Callable[[dict[str, str]], None]


@pytest.fixture
def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """Put a docker command first on PATH that prints a text for the arguments that hold a word, and else fails."""

    def write(answers: dict[str, str]) -> None:
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir(exist_ok=True)
        for number, text in enumerate(answers.values()):
            (program.parent / f"{number}").write_text(text, encoding="utf-8")
        cases = "".join(f'*"{word}"*) exec cat "$0/../{n}";;\n' for n, word in enumerate(answers)).replace(
            "$0/..", str(program.parent)
        )
        program.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}esac\nexit 1\n', encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return write


def by_name(found: Iterable[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in found}


@pytest.mark.parametrize(
    ("docker", "state", "says"),
    [
        (DOCKER, State.OK, "Docker Engine 28.0.0 answers at unix:///nonexistent."),
        (Docker("default", "tcp://x:1", {"ServerVersion": "24.0.9"}), State.WRONG, "is 24.0.9; compose.yaml needs 25."),
        (Docker("nosuch", None), State.WRONG, "There is no Docker context 'nosuch', which DOCKER_CONTEXT names."),
        (Docker("far", "tcp://x:1"), State.WARNING, "does not answer at tcp://x:1, which the context 'far' names."),
    ],
)  # fmt: skip
def test_engine_is_reported_with_what_names_it(
    docker: Docker, state: State, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", docker.context)

    found = by_name(check_docker.check(Machine(ROOT, docker)))["engine"]

    assert found.state is state
    assert says in found.finding


def test_missing_docker_and_compose_are_warnings_with_where_to_get_them() -> None:
    without = by_name(check_docker.check(Machine(ROOT, Docker())))
    engine_alone = by_name(
        check_docker.check(Machine(ROOT, Docker("default", None, {"ServerVersion": "28.0"})))
    )

    assert list(without) == ["command"]
    assert engine_alone["compose"].state is State.WARNING
    assert "https://docs.docker.com" in engine_alone["compose"].cure


def test_docker_is_asked_by_its_command(fake_docker: FakeDocker, tmp_path: Path) -> None:
    fake_docker(
        {"context show": "far\n", "context inspect": "ssh://me:secret@far\n", "info": json.dumps(INFO)}
    )

    docker = examine(tmp_path).docker

    assert (docker.context, docker.address, docker.compose) == ("far", "ssh://far", "2.40.3")
    assert docker.answers


def test_docker_that_does_not_answer_holds_nobody_up(
    tmp_path: Path, fake_docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_docker({"context": "default\n"})
    program = tmp_path / "bin" / "docker"
    program.write_text(
        program.read_text(encoding="utf-8").replace("exit 1", "exec sleep 30"), encoding="utf-8"
    )
    monkeypatch.setattr(docker_cli, "ANSWER_SECONDS", 0.2)

    assert not examine(tmp_path).docker.answers


def composed(
    answers: dict[str, str], fake_docker: FakeDocker, project: dict[str, Any] = PROJECT
) -> dict[str, Finding]:
    fake_docker({"compose ps": "", "ps --all": "", "volume inspect": "[]", "docker run": ""} | answers)
    return by_name(check_compose.check(Machine(ROOT, DOCKER, project)))


@pytest.mark.parametrize(
    ("state", "health", "code", "expected"),
    [
        ("running", "healthy", 0, State.OK),
        ("running", "unhealthy", 0, State.WRONG),
        ("restarting", "", 1, State.WRONG),
        ("exited", "", 1, State.WRONG),
        ("exited", "", 143, State.OK),
    ],
)
def test_service_is_wrong_if_it_is_unhealthy_or_failed(
    state: str, health: str, code: int, expected: State, fake_docker: FakeDocker
) -> None:
    service = {"Service": "db", "State": state, "Health": health, "ExitCode": code}

    found = composed({"compose ps": json.dumps(service)}, fake_docker)["services"]

    assert found.state is expected
    assert found.cure == ("`docker compose logs db` says why." if expected is State.WRONG else "")


def test_another_checkout_with_the_same_project_name_is_wrong(fake_docker: FakeDocker) -> None:
    found = composed({"ps --all": f"{ROOT}\n/home/me/other\n\n"}, fake_docker)["project"]

    assert found.state is State.WRONG
    assert found.finding.startswith("Another checkout, /home/me/other, has containers")


@pytest.mark.parametrize(
    ("versions", "state", "says"),
    [
        ("18\n", State.OK, "mine_db is empty"),
        ("18\n18\n", State.OK, "holds data of PostgreSQL 18"),
        ("18\n16\n", State.WRONG, "`nox -s db_upgrade`"),
        ("18\n19\n", State.WRONG, "Dump them"),
    ],
)
def test_volume_of_another_version_is_wrong(
    versions: str, state: State, says: str, fake_docker: FakeDocker
) -> None:
    found = composed({"run --rm": versions}, fake_docker)["volume"]

    assert found.state is state
    assert says in found.finding + found.cure


@pytest.mark.parametrize(
    ("answers", "says", "cure"),
    [
        (
            {"--project-name doctor config": ""},
            "cannot make a project name",
            "Set COMPOSE_PROJECT_NAME='procore'",
        ),
        ({}, "cannot read compose.yaml", "`docker compose config --quiet` says where."),
    ],
)
def test_project_name_that_compose_refuses_is_told_from_files_that_it_cannot_read(
    answers: dict[str, str], says: str, cure: str, fake_docker: FakeDocker
) -> None:
    found = composed(answers, fake_docker, project={})["files"]

    assert found.state is State.WRONG
    assert says in found.finding
    assert found.cure.startswith(cure)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory whose `.env` and `backend/.env` are read as the project's; the environment sets nothing."""
    (tmp_path / "backend").mkdir()
    (tmp_path / "compose.yaml").write_text("${POSTGRES_DB:-x}", encoding="utf-8")
    monkeypatch.setattr(config, "ENV_FILES", (tmp_path / "backend" / ".env", tmp_path / ".env"))
    for name in config.Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def settings(checkout: Path, text: str, docker: Docker = DOCKER) -> list[Finding]:
    (checkout / ".env").write_text(text, encoding="utf-8")
    return list(check_env_file.check(Machine(checkout, docker)))


def test_example_is_well_as_it_is(checkout: Path) -> None:
    found = settings(checkout, (ROOT / ".env.example").read_text(encoding="utf-8"), Docker())

    assert {each.state for each in found} == {State.OK}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("API_TOKNE", "which is not a setting. Write API_TOKEN, if that is meant."),
        ("api_port", "which is not a setting. Write API_PORT, if that is meant."),
        ("COMPOSE_PROJECTNAME", "which is not a setting. Write COMPOSE_PROJECT_NAME, if that is meant."),
        ("TEST_DATABASE_URL", "which is only read from the environment. Export it in your shell."),
        ("QUITE_ELSE", ".env has a name that is not a setting. Remove it; .env.example has every setting."),
    ],
)  # fmt: skip
def test_name_that_is_not_a_setting_is_a_warning(name: str, says: str, checkout: Path) -> None:
    (found,) = [each for each in settings(checkout, f"{name}='1'\n", Docker()) if each.state is not State.OK]

    assert (found.name, found.state) == ("names", State.WARNING)
    assert f"{found.finding} {found.cure}".endswith(says)
    assert (name in found.finding) is (name != "QUITE_ELSE")  # it may be part of a secret


def test_misspelt_name_in_the_environment_is_a_warning(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKNE", "1")

    (found,) = [each for each in settings(checkout, "", Docker()) if each.state is not State.OK]
    assert found.finding == "The environment has API_TOKNE, which is not a setting."


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("A='1'\nAPI_PORT='1\n", "files", "line 2"),
        ("API_PORT='http'\nDB_PORT='0'\n", "values", "DB_PORT"),
        ("APP_ENV='prod'\n", "values", "must be development, test or production"),
    ],
)
def test_what_every_command_stops_at_is_wrong(text: str, name: str, says: str, checkout: Path) -> None:
    found = [each for each in settings(checkout, text, Docker()) if each.state is State.WRONG]

    assert {each.name for each in found} == {name}
    assert any(says in each.finding for each in found)
    assert all(each.cure for each in found)


def test_value_that_compose_reads_otherwise_is_a_warning(checkout: Path, fake_docker: FakeDocker) -> None:
    fake_docker({"config --environment": "POSTGRES_USER=me\nPOSTGRES_PASSWORD=a\n"})

    found = by_name(settings(checkout, "POSTGRES_USER='me'\nPOSTGRES_PASSWORD=\"a$b\"\n"))

    assert found["compose"].finding == "Compose reads another value of POSTGRES_PASSWORD in .env than Python."


def test_value_that_compose_does_not_read_is_a_warning(checkout: Path, fake_docker: FakeDocker) -> None:
    fake_docker({"config --environment": ""})
    (checkout / "backend" / ".env").write_text("POSTGRES_DB='x'\nAPI_TOKEN=''\n", encoding="utf-8")

    assert (
        by_name(settings(checkout, ""))["compose"].finding
        == "backend/.env has POSTGRES_DB, and Compose reads .env only."
    )


LISTEN = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def listening(directory: Path, *command: str) -> Iterator[tuple[int, int]]:
    """Run a program that listens, and give its process id and its port."""
    with subprocess.Popen(
        [sys.executable, *command], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


def test_port_of_another_process_is_wrong_and_a_free_one_is_proposed(tmp_path: Path) -> None:
    (tmp_path / "listen.py").write_text(LISTEN, encoding="utf-8")
    with listening(tmp_path, "listen.py", "--password=secret") as (pid, port):
        found = check_ports.check_port(Machine(tmp_path, Docker()), "API_PORT", port, "api")

    assert re.fullmatch(rf"{port} is held by python[\d.]* listen\.py \(process {pid}\)\.", found.finding)
    proposed = re.fullmatch(rf"Stop it \(`kill {pid}`\), or set API_PORT='(\d+)' in \.env\.", found.cure)
    assert proposed is not None
    socket.create_server(("127.0.0.1", int(proposed[1]))).close()


def test_port_of_this_checkouts_api_is_well_but_not_for_the_database(tmp_path: Path) -> None:
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend" / "listen.py").write_text(LISTEN, encoding="utf-8")
    with listening(tmp_path, "-m", "backend.listen") as (_, port):
        machine = Machine(tmp_path, Docker())
        api, database = (check_ports.check_port(machine, "X", port, service) for service in ("api", "db"))

    assert (api.state, database.state) == (State.OK, State.WRONG)
    assert "-m backend.listen (process " in api.finding


@pytest.mark.parametrize(
    ("labels", "state", "says"),
    [
        (f"db\t{ROOT}", State.OK, "is held by Compose's db (container c), of this checkout."),
        ("db\t/other", State.WRONG, "is held by the container c of /other. `docker stop c`, or set DB_PORT="),
        ("\t", State.WRONG, "is held by the container c. `docker stop c`, or set DB_PORT="),
    ],
)
def test_port_of_a_container_is_reported_with_its_name(
    labels: str, state: State, says: str, fake_docker: FakeDocker
) -> None:
    fake_docker({"ps --filter publish=15432": f"c\t{labels}\n"})

    found = check_ports.check_port(Machine(ROOT, DOCKER), "DB_PORT", 15432, "db")

    assert found.state is state
    assert says in f"{found.finding} {found.cure}"


def test_port_that_nobody_holds_is_free_and_one_on_every_address_is_held(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as everywhere:
        port = everywhere.getsockname()[1]
        held = check_ports.check_port(Machine(tmp_path, Docker()), "API_PORT", port, "api")
    free = check_ports.check_port(Machine(tmp_path, Docker()), "API_PORT", port, "api")

    assert f"(process {os.getpid()})" in held.finding
    assert free.finding == f"{port} is free."


@pytest.mark.parametrize(
    ("least", "enough", "state"),
    [(0, 0, State.OK), (0, 10**12, State.WARNING), (10**12, 10**12, State.WRONG)],
)
def test_disk_is_judged_by_what_is_free(least: int, enough: int, state: State, tmp_path: Path) -> None:
    found = check_disk.space("checkout", "for the checkout", tmp_path, least=least, enough=enough)

    assert found.state is state
    assert re.fullmatch(
        rf"(Only )?[\d.]+ GB free for the checkout, at {re.escape(str(tmp_path))}\.", found.finding
    )


@pytest.mark.parametrize(
    ("lock", "state", "says"),
    [
        (f"sqlalchemy=={version('sqlalchemy')} ; python_full_version >= '3.11'\nno==1 ; sys_platform == 'win32'\n",
         State.OK, "has the 1 packages"),
        ("absent==1.0 \\\n    --hash=sha256:0\n", State.WRONG, "it lacks absent."),
        ("sqlalchemy==0.1\n", State.WRONG, f"it has sqlalchemy {version('sqlalchemy')} instead of 0.1."),
    ],
)  # fmt: skip
def test_environment_is_compared_with_the_lock(lock: str, state: State, says: str) -> None:
    found = check_environment.compare(lock, ".venv")

    assert found.state is state
    assert says in found.finding
    assert (".lock-digest" in found.cure) is (state is State.WRONG)


def test_environment_that_is_another_than_nox_uses_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_PROJECT_ENVIRONMENT", raising=False)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()

    assert (
        by_name(check_environment.check(Machine(tmp_path, Docker())))["packages"].cure
        == "Use `nox -s doctor`."
    )
