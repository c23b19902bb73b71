"""The benchmark of isolation beside its peers, and the matrix, as nox runs them: small, and whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.isolation.suites import SUITES, WAITS
from devtools.matrix.combinations import DEFAULT_PYTHON

from .checkout import ROOT, wait_until

BENCH = [sys.executable, "-m", "benchmarks", "isolation", "--runs", "1", "--tests", "5"]
MATRIX = [sys.executable, "-m", "devtools.matrix"]
MEMORY = Path("/dev/shm")  # noqa: S108  where the benchmark makes its directory


def containers() -> set[str]:
    """Return the containers here but for Compose's, which checkouts beside us have, and for reapers, which go later."""
    shown = '{{.ID}} {{.Names}} {{.Label "com.docker.compose.project"}}'
    command = ["docker", "ps", "--all", "--format", shown]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line for line in listed if line.endswith(" ") and "ryuk" not in line}


def wait_until_gone(before: set[str]) -> None:
    """Wait until none is left of those that came since; one of a run beside us may have to end first."""
    left = containers() - before
    wait_until(lambda: not left & containers(), seconds=120, what=f"none is left of {left}")


def directories() -> set[Path]:
    return {*MEMORY.glob("bench-*")} if MEMORY.is_dir() else set()


def measure(tmp_path: Path, **environment: str) -> tuple[dict[str, object], str]:
    told, plot = tmp_path / "told.json", tmp_path / "plot.svg"
    done = subprocess.run(
        [*BENCH, "--json", str(told), "--plot", str(plot)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "</svg>" in plot.read_text(encoding="utf-8")
    written = json.loads(told.read_text(encoding="utf-8"))
    assert not [remark for remark in written["remarks"] if "failed" in remark], written["remarks"]
    return written, done.stdout


def names(written: dict[str, object], kind: str) -> list[str]:
    listed = written[kind]
    assert isinstance(listed, list)
    return [each["name"] for each in listed]


def test_ours_and_the_peers_are_measured_and_nothing_is_left(tmp_path: Path) -> None:
    containers_before, directories_before = containers(), directories()

    written, said = measure(tmp_path)

    assert names(written, "suites") == [suite.name for suite in (*SUITES, *WAITS)]
    assert names(written, "boots") == [
        "ours, embedded",
        "ours, in Docker",
        "docker run",
        "testcontainers",
        "pytest-postgresql",
    ]
    judged = written["verdicts"]
    assert isinstance(judged, list)
    assert len(judged) == 7
    assert "pytest-postgresql 1" in said, "versions are told"
    assert directories() <= directories_before
    wait_until_gone(containers_before)


def test_without_docker_what_needs_it_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    written, said = measure(tmp_path, DOCKER_HOST="unix:///nonexistent")

    assert names(written, "suites") == [suite.name for suite in (*SUITES, *WAITS) if not suite.docker]
    assert names(written, "boots") == ["ours, embedded", "pytest-postgresql"]
    assert "Docker does not answer at unix:///nonexistent: whatever needs Docker" in " ".join(said.split())


@pytest.mark.parametrize("moment", ["a suite", "a container"])
def test_ctrl_c_in_the_middle_leaves_nothing(moment: str) -> None:
    containers_before, directories_before = containers(), directories()
    process = subprocess.Popen(
        BENCH, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )

    def made() -> bool:
        new = directories() - directories_before
        if moment == "a container":
            # It may be another's, but the benchmark is under way.
            return bool(new and containers() - containers_before)
        return any((each / "suite" / "log").exists() for each in new)

    wait_until(made, seconds=300, what=f"{moment} runs")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert said.strip().endswith("Interrupted.")
    assert "Traceback" not in said
    assert directories() <= directories_before
    # One that was only just being made is its reaper's to remove.
    wait_until_gone(containers_before)


@pytest.fixture
def suite(tmp_path: Path) -> list[str]:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p freshpg.plugin\n", encoding="utf-8")
    (tmp_path / "test_suite.py").write_text(
        "def test_same(postgres_server):\n    assert postgres_server.url\n\n"
        "def test_new(postgres_server):\n    assert int(postgres_server.version.split('.')[0]) >= 18\n",
        encoding="utf-8",
    )
    return ["-c", str(tmp_path / "pytest.ini"), "--rootdir", str(tmp_path), str(tmp_path / "test_suite.py")]


def test_matrix_names_what_differs_between_servers(suite: list[str]) -> None:
    done = subprocess.run(
        [*MATRIX, "--only", "Docker", "--only", f"embedded, Python {DEFAULT_PYTHON}", *suite],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    start = lines.index("test_suite.py::test_new")
    older = "; ".join(f"PostgreSQL {version} in Docker, Python {DEFAULT_PYTHON}" for version in (15, 17))
    assert lines[start + 1] == f"  failed  {older}"
    assert lines[start + 2].startswith(
        f"  passed  PostgreSQL 18 in Docker, Python {DEFAULT_PYTHON}; PostgreSQL 18."
    )
    assert lines[start + 3] == "1 test above; 1 test with one outcome in all 4 combinations."
