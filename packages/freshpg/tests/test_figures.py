"""The line at the end of a run: what the database cost it."""

import re
from pathlib import Path

import pytest

from freshpg import Server
from freshpg.figures import percentile

from .inner import ALONE_OR_NOT, run_inside

SUITE = """
@pytest.mark.parametrize("number", range(10))
def test_committing(postgres_committing, number):
    run(postgres_committing, "insert into things default values")

@pytest.mark.parametrize("number", range(4))
def test_clone(postgres_clone, number):
    pass

def test_other():
    time.sleep(0.1)
"""
LINE = re.compile(
    r"^PostgreSQL 18\S* embedded: ready in (?P<boot>\d+\.\d\d) s; "
    r"isolation committing (?P<middle>\d+\.\d) ms p50, (?P<most>\d+\.\d) ms p95 \(10 tests\), "
    r"clone \d+\.\d ms p50, \d+\.\d ms p95 \(4 tests\), (?P<share>\d+\.\d)% of the run; "
    r"(?P<held>\d+) MB (in memory|on disk) at the end; nothing leaked$",
    re.MULTILINE,
)


@pytest.mark.parametrize("workers", ALONE_OR_NOT, ids=["alone", "workers"])
def test_one_line_tells_what_the_database_cost(tmp_path: Path, workers: tuple[str, ...]) -> None:
    result = run_inside(tmp_path, SUITE, *workers)

    assert result.returncode == 0, result.stdout
    line = LINE.search(result.stdout)
    assert line is not None, result.stdout
    assert len(re.findall(r"^PostgreSQL .* embedded: ", result.stdout, re.MULTILINE)) == 1
    assert 0 < float(line["boot"]) < 60
    assert 0 < float(line["middle"]) <= float(line["most"])
    assert 0 < float(line["share"]) < 100
    assert 20 < int(line["held"]) < 500


@pytest.mark.parametrize(("quiet", "times"), [("-q", 1), ("-qq", 0)])
def test_it_is_as_quiet_as_pytests_own_last_line(tmp_path: Path, quiet: str, times: int) -> None:
    result = run_inside(tmp_path, SUITE, quiet)

    assert result.returncode == 0
    assert len(LINE.findall(result.stdout)) == times
    assert ("15 passed" in result.stdout) == bool(times)


@pytest.mark.parametrize("workers", ALONE_OR_NOT, ids=["alone", "workers"])
def test_nothing_is_said_where_no_test_used_the_server(tmp_path: Path, workers: tuple[str, ...]) -> None:
    result = run_inside(tmp_path, "def test_other(): pass\n", *workers)

    assert "1 passed" in result.stdout
    assert "ready in" not in result.stdout
    assert "leaked" not in result.stdout


def test_of_a_given_server_only_what_was_looked_for_is_told(tmp_path: Path, embedded: Server) -> None:
    result = run_inside(tmp_path, "def test_it(postgres_clone): pass\n", postgres=embedded.url)

    assert re.search(
        r"^PostgreSQL 18\S* given: isolation clone \S+ ms p50, \S+ ms p95 \(1 test\), \S+% of the run$",
        result.stdout,
        re.MULTILINE,
    )


def test_what_tests_left_changed_is_told_by_their_names(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        """
        @pytest.mark.parametrize("number", range(5))
        def test_it(postgres_clone, use, number):
            if number:
                use.faults.append("Table things has a new column.")
        """,
    )

    names = ", ".join(f"test_it.py::test_it[{number}]" for number in (1, 2, 3))
    assert f"; not as it was after {names} and 1 more\n" in result.stdout


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5], 95, 5),
        ([1, 2, 3, 4], 50, 2),
        (range(1, 101), 95, 95),
        (range(1, 101), 50, 50),
        ([3, 1, 2], 100, 3),
    ],
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: int, expected: float) -> None:
    assert percentile(values, percent) == expected
