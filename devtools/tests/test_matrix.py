"""The matrix, on suites of its own: what is run, what is told of it, and how it ends."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.matrix.combinations import DEFAULT_PYTHON, Combination
from devtools.matrix.outcomes import Difference, Row, differences, read_junit
from devtools.matrix.report import compare

from .support import ROOT, environment, finished, is_alive, python, wait_until

MATRIX = python("-m", "devtools.matrix")
EMBEDDED = ("--only", f"embedded, Python {DEFAULT_PYTHON}")
ONE, OTHER = Combination("3.11", "postgres:15"), Combination("3.12")

SUITE = """
import unittest
import pytest

def test_passes():
    pass

@pytest.mark.parametrize("text", ["a", "b/c.py::d"])
def test_of_each(text):
    pass

class TestGroup:
    class TestInner:
        def test_fails(self):
            assert False

@pytest.mark.skip
def test_skipped():
    pass

@pytest.mark.xfail
def test_expected():
    assert False

@pytest.fixture
def broken():
    yield
    raise RuntimeError

def test_whose_end_fails(broken):
    pass

def test_that_fails_twice(broken):
    assert False
"""


@pytest.fixture
def suite(tmp_path: Path) -> list[str]:
    """Return pytest's arguments for a suite beside the project's, with the plugin loaded."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p freshpg.plugin\n", encoding="utf-8")
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    return ["-c", str(tmp_path / "pytest.ini"), "--rootdir", str(tmp_path), str(tmp_path / "test_suite.py")]


def test_outcomes_are_told_by_node_id(tmp_path: Path, suite: list[str]) -> None:
    junit = tmp_path / "junit.xml"
    finished(python("-m", "pytest", "-q", "-o", "junit_family=xunit1", f"--junit-xml={junit}", *suite))

    assert read_junit(junit) == {
        "test_suite.py::test_passes": "passed",
        "test_suite.py::test_of_each[a]": "passed",
        "test_suite.py::test_of_each[b/c.py::d]": "passed",
        "test_suite.py::TestGroup::TestInner::test_fails": "failed",
        "test_suite.py::test_skipped": "skipped",
        "test_suite.py::test_expected": "xfailed",
        "test_suite.py::test_whose_end_fails": "error",
        "test_suite.py::test_that_fails_twice": "failed",
    }


def test_run_that_left_no_file_has_no_outcomes(tmp_path: Path) -> None:
    assert read_junit(tmp_path / "none.xml") == {}


def rows(one: dict[str, str], other: dict[str, str]) -> list[Row]:
    return [Row(ONE, exit_code=0, outcomes=one), Row(OTHER, exit_code=0, outcomes=other)]


def test_only_what_differs_is_named_and_where() -> None:
    compared = rows(
        {"same": "passed", "differs": "failed", "only_here": "passed"},
        {"same": "passed", "differs": "passed"},
    )

    assert differences(compared) == [
        Difference("differs", ("failed", "passed")),
        Difference("only_here", ("passed", "absent")),
    ]
    assert [line.plain for line in compare(compared)] == [
        "differs",
        f"  failed  {ONE.name}",
        f"  passed  {OTHER.name}",
        "only_here",
        f"  absent  {OTHER.name}",
        f"  passed  {ONE.name}",
        "2 tests above; 1 test with one outcome in all 2 combinations.",
    ]


def test_identical_outcomes_are_one_line_and_failures_everywhere_are_named() -> None:
    assert [line.plain for line in compare(rows({"a": "passed"}, {"a": "passed"}))] == [
        "Nothing differs: 1 test with one outcome in all 2 combinations."
    ]
    assert [line.plain for line in compare(rows({"a": "failed"}, {"a": "failed"}))] == [
        "Nothing differs: 1 test with one outcome in all 2 combinations.",
        "Failed in all 2 combinations:",
        "  a",
    ]


def test_what_is_not_here_is_listed_with_the_reason(tmp_path: Path) -> None:
    """No place is left to uv where another Python could be."""
    done = finished(
        [*MATRIX, "--list"],
        PATH=str(Path(sys.executable).parent),
        PYENV_ROOT=str(tmp_path),
        UV_PYTHON_INSTALL_DIR=str(tmp_path),
        UV_PYTHON_SEARCH_PATH=str(tmp_path),
        COLUMNS="160",
    )

    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for version in ("15", "17", "18"):
        gone = "not here: Docker does not answer at unix:///nonexistent"
        assert f"{version} in Docker {DEFAULT_PYTHON} {gone}" in lines
    others = [line for line in lines if "embedded" in line]
    assert re.fullmatch(rf"18\.\d+ embedded {re.escape(DEFAULT_PYTHON)} yes", others[0])
    assert len(others) == 4
    for line in others[1:]:
        assert re.search(r"not here: no Python 3\.1\d on this machine$", line)


def test_absence_is_told_and_fails_only_when_asked_to() -> None:
    words = ("--only", "postgres:15", *EMBEDDED)
    one_test = "backend/tests/test_documentation.py::test_readme_lists_every_setting"

    done = finished([*MATRIX, *words, one_test], COLUMNS="160")
    strict = finished([*MATRIX, *words, "--strict", one_test], COLUMNS="160")

    assert "not here: Docker does not answer at unix:///nonexistent" in done.stdout
    assert "Nothing differs: 1 test with one outcome in the one combination that could be run." in done.stdout
    assert (done.returncode, strict.returncode) == (0, 1), done.stdout + done.stderr


def test_where_nothing_can_be_run_it_fails() -> None:
    assert finished([*MATRIX, "--only", "in Docker"]).returncode == 1


def test_failures_are_counted_named_and_told_in_a_log(suite: list[str]) -> None:
    done = finished([*MATRIX, *EMBEDDED, *suite], COLUMNS="160")

    assert done.returncode == 1
    counts = " ".join(next(line for line in done.stdout.splitlines() if "embedded" in line).split())
    # Four pass or fail as they should, one fails, one at its end, one at both, one is skipped.
    assert re.fullmatch(rf"18\.\d+ embedded {re.escape(DEFAULT_PYTHON)} 4 3 1 \d+\.\d 1", counts)
    assert "  test_suite.py::TestGroup::TestInner::test_fails" in done.stdout.splitlines()
    log = ROOT / re.findall(r"is in (\S+\.log)", done.stdout)[-1]
    assert "RuntimeError" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize("argument", ["--postgres=docker", "--postgres-image"])
def test_the_servers_are_the_matrix_s_to_choose(argument: str) -> None:
    done = finished([*MATRIX, argument, "postgres:16"])

    assert done.returncode == 2
    assert "is the matrix's to choose" in done.stderr


def test_word_that_fits_no_combination_is_refused() -> None:
    done = finished([*MATRIX, "--only", "postgres:9"])

    assert done.returncode == 2
    assert "no combination has postgres:9 in its name" in done.stderr


def test_ctrl_c_stops_the_suite_and_tells_what_was_run(tmp_path: Path, suite: list[str]) -> None:
    slow = (
        "import os, time\n"
        "def test_slow(postgres_server):\n"
        f"    open({str(tmp_path / 'running')!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "test_suite.py").write_text(slow, encoding="utf-8")
    running = tmp_path / "running"
    process = subprocess.Popen(
        [*MATRIX, *EMBEDDED, *suite],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: running.exists() and running.read_text().endswith("\n"), "the test runs", 60)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=40)

    assert process.returncode == 130
    assert "Interrupted: the other combinations were not run." in said
    assert "Traceback" not in said
    assert not is_alive(int(running.read_text()))
