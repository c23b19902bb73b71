"""What a run survives, and what it leaves when it does not."""

import signal
import time
from pathlib import Path

import pytest

from .support import is_alive, query, wait_until
from .test_plugin import DATABASES, WORKERS, Project, pytest_in, pytest_started
from .test_plugin import guest as guest  # noqa: PLC0414 (for pytest to find it here as well)
from .test_plugin import project as project  # noqa: PLC0414 (likewise)

WAITING = """
import os, pathlib, time
from conftest import connect

def test_wait(postgres_clone, postgres_server):
    with connect(postgres_server.url) as connection:
        data = connection.execute("select current_setting('data_directory', true)").fetchone()[0]
    pathlib.Path("making").write_text(f"{os.getpid()} {data}")
    pathlib.Path("making").rename("waiting")
    time.sleep(60)
"""


class Waiting:
    """The run's process that waits in its test, and the server that it uses."""

    def __init__(self, place: Path) -> None:
        wait_until((place / "waiting").exists, "the test waits", 30)
        pid, _, data = (place / "waiting").read_text(encoding="utf-8").partition(" ")
        self.pid, self.data = int(pid), Path(data)
        self.server = int((self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])

    def expect_nothing_left(self) -> None:
        wait_until(lambda: not is_alive(self.server), "the server is gone")
        wait_until(lambda: not self.data.parent.exists(), "the directory is gone")


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["alone", "workers"])
@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_ctrl_c_twice_leaves_nothing(project: Project, workers: tuple[str, ...], pause: float) -> None:
    """The second comes while the first is being answered, and hits the clean-up itself."""
    place = project(WAITING)
    with pytest_started(place, *workers, "--postgres", "embedded") as run:
        waiting = Waiting(place)
        run.send_signal(signal.SIGINT)
        time.sleep(pause)
        run.send_signal(signal.SIGINT)
        run.wait(30)

    waiting.expect_nothing_left()


def test_a_worker_that_is_killed_is_replaced_and_takes_nothing_with_it(project: Project) -> None:
    place = project(
        "import os, pathlib, pytest, signal\n"
        "from conftest import connect\n"
        "@pytest.mark.parametrize('number', range(6))\n"
        "def test_it(postgres_clone, postgres_server, number):\n"
        "    if number == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    with connect(postgres_server.url) as connection:\n"
        "        data = connection.execute('show data_directory').fetchone()[0]\n"
        "    pathlib.Path('data').write_text(data)\n"
    )

    result = pytest_in(place, *WORKERS, "--postgres", "embedded")

    assert "1 failed, 5 passed" in result.stdout, result.stdout
    assert "crashed while running" in result.stdout
    assert len((place / "prepared").read_text(encoding="utf-8").splitlines()) == 1
    assert not Path((place / "data").read_text(encoding="utf-8")).parent.exists()


def test_a_run_whose_server_is_killed_ends_and_leaves_nothing(project: Project) -> None:
    place = project(
        "import os, pathlib, signal\n"
        "from conftest import connect\n"
        "def test_it(postgres_server):\n"
        "    with connect(postgres_server.url) as connection:\n"
        "        data = connection.execute('show data_directory').fetchone()[0]\n"
        "    pathlib.Path('data').write_text(data)\n"
        "    os.kill(int(pathlib.Path(data, 'postmaster.pid').read_text().split()[0]), signal.SIGKILL)\n"
        "def test_next(postgres_clone): pass\n"
    )

    result = pytest_in(place, "--postgres", "embedded")

    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert not Path((place / "data").read_text(encoding="utf-8")).parent.exists()


def test_two_runs_at_once_in_one_checkout_and_on_one_server_do_not_meet(project: Project, guest: str) -> None:
    place = project()
    before = query(guest, DATABASES)
    with (
        pytest_started(place, *WORKERS, "--postgres", guest) as one,
        pytest_started(place, "--postgres", guest) as another,
        pytest_started(place, "--postgres", "embedded") as third,
    ):
        assert [run.wait(60) for run in (one, another, third)] == [0, 0, 0]

    assert query(guest, DATABASES) == before
    assert len((place / "prepared").read_text(encoding="utf-8").splitlines()) == 3
