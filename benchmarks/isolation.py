"""The cost of test isolation: freshpg and similar libraries run the same tests, which insert and commit.

uv installs each library into a separate environment, which it caches. The cost of a test is the time of its setup and
teardown, as reported by pytest. The libraries take turns, because the speed of a machine varies.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from freshpg import PostgresUnavailable, choose

PEERS = Path(__file__).with_name("peers")
COMMON = ("pytest", "psycopg[binary]", "sqlalchemy")


@dataclass(frozen=True)
class Way:
    """One way to isolate tests: its conftest in `peers/`, the packages to install, and its arguments to pytest."""

    name: str
    conftest: str
    packages: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    tables: int = 6
    needs_docker: bool = False

    def command(self) -> list[str]:
        if not self.packages:  # ours, from this environment
            return [sys.executable, "-m", "pytest", "-p", "freshpg.plugin"]
        install = [word for package in (*COMMON, *self.packages) for word in ("--with", package)]
        uv = shutil.which("uv") or "uv"
        return [
            uv,
            "run",
            "--quiet",
            "--no-project",
            "--isolated",
            "--python",
            sys.executable,
            *install,
            "python",
            "-m",
            "pytest",
        ]


EMBEDDED, DOCKER = ("--postgres", "embedded"), ("--postgres", "docker")
WAYS = (
    Way("freshpg, embedded, 6 tables", "with_freshpg", arguments=EMBEDDED),
    Way("freshpg, embedded, 60 tables", "with_freshpg", arguments=EMBEDDED, tables=60),
    Way("freshpg, embedded, 300 tables", "with_freshpg", arguments=EMBEDDED, tables=300),
    Way("freshpg, Docker, 6 tables", "with_freshpg", arguments=DOCKER, needs_docker=True),
    Way(
        "pytest-postgresql, a clone per test",
        "with_pytest_postgresql",
        ("pytest-postgresql==10.*",),
        ("-p", "pytest_postgresql.plugin"),
    ),
    Way("py-pglite, TRUNCATE", "with_pglite", ("py-pglite[sqlalchemy]", "greenlet")),
    Way(
        "pytest-databases, TRUNCATE",
        "with_pytest_databases",
        ("pytest-databases",),
        ("-p", "pytest_databases._service"),
        needs_docker=True,
    ),
    Way(
        "testcontainers, create_all and drop_all",
        "with_testcontainers",
        ("testcontainers",),
        needs_docker=True,
    ),
)


@dataclass
class Figures:
    """The seconds of each run: the median around a test, around the first test, and of the complete process."""

    per_test: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


def main(*, runs: int = 3, tests: int = 200) -> None:
    console = Console()
    ways = [way for way in WAYS if not way.needs_docker or has_docker()]
    figures = {way: Figures() for way in ways}
    failed: dict[Way, str] = {}
    with given_server() as environment:
        turns = [way for _ in range(runs) for way in ways]
        for way in track(turns, "Measuring", console=Console(stderr=True), transient=True):
            if way not in failed:
                try:
                    around = measure(way, tests, environment)
                except subprocess.CalledProcessError as error:
                    failed[way] = " ".join(str(error.output).split()[-40:])
                    continue
                figures[way].per_test.append(statistics.median(around[1:-1]))
                figures[way].first.append(around[0])
    console.print(table(figures, tests))
    for way, output in failed.items():
        console.print(f"Left out, because it failed: {way.name}: ... {output}", markup=False, soft_wrap=True)
    if len(ways) < len(WAYS):
        console.print(
            "Left out, because Docker does not answer: " + ", ".join(w.name for w in WAYS if w not in ways)
        )


def has_docker() -> bool:
    try:
        choose("docker")
    except PostgresUnavailable:
        return False
    return True


@contextmanager
def given_server() -> Iterator[dict[str, str]]:
    """Start a server for pytest-postgresql, because its own server refuses to run as root."""
    unwanted = ("PYTEST", "POSTGRES", "PG", "TEST_DATABASE", "DATABASE", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    with choose("embedded").start() as server:
        yield kept | {"BENCH_SERVER": server.url}


def measure(way: Way, tests: int, environment: dict[str, str]) -> list[float]:
    """Run the suite once; return the seconds around each test. Raises CalledProcessError if it does not pass."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copy(PEERS / f"{way.conftest}.py", place / "conftest.py")
        shutil.copy(PEERS / "suite.py", place / "test_suite.py")
        (place / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        variables = {
            "BENCH_TABLES": str(way.tables),
            "BENCH_TESTS": str(tests),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(PEERS),
        }
        subprocess.run(
            [*way.command(), "-q", "-p", "no:cacheprovider", "-p", "recorder", *way.arguments],
            cwd=place,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        around: list[float] = json.loads((place / "around.json").read_text(encoding="utf-8"))
    return around


def table(figures: dict[Way, Figures], tests: int) -> Table:
    rows = Table(title=f"{tests} tests that insert and commit; medians of the runs", title_justify="left")
    for heading in ("", "around a test, p50", "times ours", "until the first test"):
        rows.add_column(heading, justify="left" if not heading else "right")
    measured = {way: found for way, found in figures.items() if found.per_test}
    ours = next((statistics.median(found.per_test) for found in measured.values()), None)
    for way, found in measured.items():
        per_test = statistics.median(found.per_test)
        ratio = f"{per_test / ours:.1f}" if ours else ""
        rows.add_row(way.name, f"{per_test * 1000:.2f} ms", ratio, f"{statistics.median(found.first):.2f} s")
    return rows
