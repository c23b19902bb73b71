"""The cost of test isolation: freshpg and similar libraries run the same tests, which insert and commit.

uv installs each library into a separate environment, which it caches. The cost of a test is the time of its setup and
teardown, as reported by pytest. The libraries take turns, because the speed of a machine varies.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.reporting import print_table, take_turns
from freshpg import choose

PEERS = Path(__file__).with_name("peers")
COMMON = ("pytest", "psycopg[binary]", "sqlalchemy")


@dataclass(frozen=True)
class Way:
    """One way to isolate tests: its conftest in `peers/`, the packages to install, and its arguments to pytest."""

    name: str
    conftest: str
    packages: str = ""
    arguments: str = ""
    tables: int = 6

    def command(self) -> list[str]:
        if not self.packages:  # ours, from this environment
            return [sys.executable, "-m", "pytest", "-p", "freshpg.plugin", *self.arguments.split()]
        options = ["--quiet", "--no-project", "--isolated", "--python", sys.executable]
        packages = [word for package in (*COMMON, *self.packages.split()) for word in ("--with", package)]
        return ["uv", "run", *options, *packages, "python", "-m", "pytest", *self.arguments.split()]


OURS = Way("freshpg, embedded, 6 tables", "with_freshpg", arguments="--postgres embedded")
WAYS = (
    OURS,
    Way("freshpg, embedded, 60 tables", "with_freshpg", arguments="--postgres embedded", tables=60),
    Way("freshpg, embedded, 300 tables", "with_freshpg", arguments="--postgres embedded", tables=300),
    Way("freshpg, Docker, 6 tables", "with_freshpg", arguments="--postgres docker"),
    Way(
        "pytest-postgresql, a clone per test",
        "with_pytest_postgresql",
        "pytest-postgresql==10.*",
        "-p pytest_postgresql.plugin",
    ),
    Way(
        "pytest-databases, TRUNCATE",
        "with_pytest_databases",
        "pytest-databases",
        "-p pytest_databases._service",
    ),
    Way("py-pglite, TRUNCATE", "with_pglite", "py-pglite[sqlalchemy] greenlet"),
    Way("testcontainers, create_all, drop_all", "with_testcontainers", "testcontainers"),
)


def main(*, runs: int = 3, tests: int = 200) -> None:
    measured = defaultdict[Way, list[list[float]]](list)
    alone: list[float] = []
    unwanted = ("PYTEST", "POSTGRES", "PG", "TEST_DATABASE", "DATABASE", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    # pytest-postgresql gets a server, because its own server refuses to run as root.
    with choose("embedded").start() as server:
        environment |= {"BENCH_SERVER": server.url, "BENCH_TESTS": str(tests)}
        for way in take_turns(WAYS, runs):
            try:
                around = measure(way, environment)
                measured[way].append(around["test_insert_and_commit"])
                alone.append(median(around["test_without_a_database"]))
            except subprocess.CalledProcessError as error:
                reason = " ".join(str(error.output).split()[-40:])
                print(f"Left out, because it failed (without Docker, some do): {way.name}: ... {reason}")
    per_test = {way: median(median(around[1:-1]) for around in found) for way, found in measured.items()}
    rows = [["pytest alone, no database", f"{median(alone) * 1000:.2f} ms", "", ""]]
    for way, seconds in per_test.items():
        first = median(around[0] for around in measured[way])
        ratio = seconds / per_test[OURS]
        rows.append([way.name, f"{seconds * 1000:.2f} ms", f"{ratio:.1f}", f"{first:.2f} s"])
    headings = ("", "around a test", "ratio", "first test")
    print_table(f"{tests} tests that insert and commit; medians of the runs", headings, rows)


def measure(way: Way, environment: dict[str, str]) -> dict[str, list[float]]:
    """Run the suite once; return the seconds around each test, by function.

    Raises CalledProcessError if the suite does not pass.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copy(PEERS / f"{way.conftest}.py", place / "conftest.py")
        shutil.copy(PEERS / "suite.py", place / "test_suite.py")
        (place / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        variables = {
            "BENCH_TABLES": str(way.tables),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(PEERS),
        }
        subprocess.run(
            [*way.command(), "-q", "-p", "no:cacheprovider", "-p", "recorder"],
            cwd=place,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        recorded: dict[str, float] = json.loads((place / "around.json").read_text(encoding="utf-8"))
    around = defaultdict[str, list[float]](list)
    for test, seconds in recorded.items():
        around[test.partition("::")[2].partition("[")[0]].append(seconds)
    return around
