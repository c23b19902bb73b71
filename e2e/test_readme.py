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

from backend.tests.support import wait_until

from .checkout import ROOT, Checkout, answers, copy_checkout

NOBODY = 65534
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def commands() -> list[str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return list(dict.fromkeys("".join(blocks).splitlines()))


COMMANDS = commands()
DEV, TESTS = (command for command in COMMANDS if command.startswith("python3 -m venv"))


@dataclass
class NewUser:
    """Somebody with a fresh clone and nothing else, perhaps another user."""

    checkout: Checkout
    uid: int | None = None

    @contextlib.contextmanager
    def started(
        self, command: str, output: int | IO[str], **environment: str
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a command in a process group of its own, which is killed at the end."""
        identity = {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}
        process: subprocess.Popen[str] = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.checkout.path,
            env=self.checkout.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **identity,  # type: ignore[call-overload]  # mypy does not follow it into the keywords
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def run(self, command: str, **environment: str) -> str:
        with self.started(command, subprocess.PIPE, **environment) as process:
            said, _ = process.communicate(timeout=2400)
        assert process.returncode == 0, f"{command} exited with {process.returncode}:\n{said}"
        return said

    def serve(self, command: str, **environment: str) -> None:
        """Run a command that serves until Ctrl-C, and press it once the API is ready."""
        # In a file, because a pipe that nobody reads would fill up.
        log = self.checkout.path.with_name("log")
        with log.open("w") as output, self.started(command, output, **environment) as process:
            wait_until(
                lambda: answers(f"{self.checkout.url}/health/ready") or process.poll() is not None,
                seconds=900,
                what=f"{command}: the API being ready",
            )
            assert process.poll() is None, f"{command} ended:\n{log.read_text()}"
            os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all of them
            process.wait(90)
        assert not answers(f"{self.checkout.url}/health/live")
        assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a directory that other users can access, unlike pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="e2e-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def new_user(place: Path, uid: int | None = None) -> NewUser:
    checkout, home = Checkout(copy_checkout(place / "clone")), place / "home"
    home.mkdir()
    if uid is not None:
        for path in (checkout.path, home, *checkout.path.rglob("*")):
            os.chown(path, uid, uid)
    system = os.environ["PATH"] if uid is None else SYSTEM_PATH
    kept = {name: value for name, value in checkout.environment.items() if not name.startswith("XDG_")}
    own = {"HOME": str(home), "PATH": f"{checkout.path / '.venv' / 'bin'}:{system}"}
    checkout.environment = kept | own
    return NewUser(checkout, uid)


def test_every_command_does_what_it_says(place: Path) -> None:
    user = new_user(place)
    try:
        for command in COMMANDS:
            if command in ("docker compose up", DEV):
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
