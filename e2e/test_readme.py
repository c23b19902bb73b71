"""The commands of the README and docs/ work as written, in a fresh clone with an empty home and no cache."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from .checkout import ROOT, Checkout, answers, copy_checkout, wait_until

NOBODY = 65534
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def commands() -> list[str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [
        block
        for page in pages
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    return list(dict.fromkeys(line for block in blocks for line in block.splitlines()))


COMMANDS = commands()
SERVING = [
    command for command in COMMANDS if command == "docker compose up" or command.endswith("nox -s dev")
]
DEV, TESTS = (
    next(command for command in COMMANDS if command.endswith(ending))
    for ending in ("nox -s dev", "nox -s tests")
)


@dataclass
class NewUser:
    """Somebody with a fresh clone and nothing else, perhaps another user."""

    checkout: Checkout
    home: Path
    uid: int | None = None

    def start(self, command: str, output: int | IO[str], **environment: str) -> subprocess.Popen[str]:
        variables = {
            name: value for name, value in self.checkout.environment.items() if not name.startswith("XDG_")
        }
        path = variables["PATH"] if self.uid is None else SYSTEM_PATH
        variables |= {
            "HOME": str(self.home),
            "PATH": f"{self.checkout.path / '.venv' / 'bin'}:{path}",
            **environment,
        }
        identity = {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}
        process: subprocess.Popen[str] = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.checkout.path,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **identity,  # type: ignore[call-overload]  # mypy does not follow it into the keywords
        )
        return process

    def run(self, command: str, *, seconds: float = 2400, **environment: str) -> str:
        process = self.start(command, subprocess.PIPE, **environment)
        try:
            said, _ = process.communicate(timeout=seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, f"{command} exited with {process.returncode}:\n{said}"
        return said

    def serve(self, command: str, **environment: str) -> str:
        """Run a command that serves until Ctrl-C, press it once the API is ready, and return the output."""
        # In a file, because a pipe that nobody reads would fill up.
        with tempfile.TemporaryFile("w+") as output:

            def said() -> str:
                output.seek(0)
                return output.read()

            process = self.start(command, output, **environment)
            try:
                wait_until(
                    lambda: answers(f"{self.checkout.url}/health/ready") or process.poll() is not None,
                    seconds=900,
                    what=f"{command}: the API being ready",
                )
                assert process.poll() is None, f"{command} ended:\n{said()}"
                os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all of them
                process.wait(90)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            output_text = said()
        assert not answers(f"{self.checkout.url}/health/live")
        assert "Traceback" not in output_text, output_text
        return output_text


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a directory that other users can access, unlike pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="e2e-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def new_user(place: Path, uid: int | None = None) -> NewUser:
    checkout = Checkout(copy_checkout(place / "clone"))
    home = place / "home"
    home.mkdir()
    if uid is not None:
        for path in (checkout.path, home, *checkout.path.rglob("*")):
            os.chown(path, uid, uid)
    return NewUser(checkout, home, uid)


def test_every_command_does_what_it_says(place: Path) -> None:
    user = new_user(place)
    try:
        for command in COMMANDS:
            if command in SERVING:
                user.serve(command)
            elif command.startswith("pipx "):
                user.run(f".venv/bin/pip install -q pipx && {command}")
            else:
                # This tests the commands; the complete suite runs elsewhere, with the same commands.
                user.run(command, PYTEST_ADDOPTS="-k test_api_companies")
    finally:
        user.checkout.compose("down", "--volumes", "--rmi", "local", check=False)


# Both kinds of user are tested: PostgreSQL refuses to run as root, and other users have fewer rights than root.
USERS = [None, NOBODY] if os.geteuid() == 0 else [None]


@pytest.mark.parametrize("uid", USERS, ids=lambda uid: "another user" if uid else "this user")
def test_both_commands_work_without_docker(place: Path, uid: int | None) -> None:
    user = new_user(place, uid)

    # The complete suite already runs without Docker as this user elsewhere; here it runs as another user.
    part = "-k test_api_companies" if uid is None else "-n 2"
    output = user.run(TESTS, DOCKER_HOST="unix:///nonexistent", PYTEST_ADDOPTS=part)
    announced = r"^PostgreSQL 18\.\d+, embedded .*unix:///nonexistent"
    assert re.search(announced, output, re.MULTILINE), output
    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output

    for _ in range(2):  # the second finds the data of the first
        user.serve(DEV, DOCKER_HOST="unix:///nonexistent")
        data = user.checkout.path / ".dev" / "postgres-18"
        assert data.exists()
        assert not list(data.rglob("postmaster.pid")), "the server is stopped with the API"
