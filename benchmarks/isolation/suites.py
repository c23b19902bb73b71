"""The suites that are measured side by side, and how each is run in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.children import run_to_end

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[3]
PEERS = Path(__file__).with_name("peers")
PLUGIN = "freshpg.plugin"
RECORDER = "benchmarks.isolation.recorder"
PACE_SECONDS = 0.02
"""What a paced test does besides: the time in which a maker can be ahead."""


@dataclass(frozen=True)
class Suite:
    """Some tests, isolated in one way, on one server."""

    name: str
    conftest: str
    tests: str = "isolated"
    tier: str = ""
    docker: bool = False
    options: tuple[str, ...] = ()
    prefixed: bool = False
    """Whether it refuses to run as root, and is run as our own server is."""
    clones: bool = False
    """Whether it is a peer that gives each test a clone."""
    lacks: str = ""
    """What of the best setting it does not allow."""

    @property
    def baseline(self) -> Suite:
        """The same tests on the same server, by one Engine and with no isolation."""
        return Suite(
            f"{self.name}, without isolation",
            self.conftest,
            "plain",
            "committing",
            self.docker,
            self.options,
            self.prefixed,
        )

    @property
    def group(self) -> str:
        return f"{self.conftest} {'docker' if self.docker else 'embedded'}"

    @property
    def is_ours(self) -> bool:
        return self.conftest == "ours"


EMPTY = Suite("an empty test", "empty", "nothing")
_EMBEDDED = ("-p", PLUGIN, "--postgres", "embedded")
_DOCKER = ("-p", PLUGIN, "--postgres", "docker", "--postgres-image", "postgres:18")


def _ours(tier: str, tests: str = "isolated", *, docker: bool = False, name: str = "") -> Suite:
    return Suite(name or f"ours, {tier}", "ours", tests, tier, docker, _DOCKER if docker else _EMBEDDED)


SESSION, COMMITTING, CLONE = (_ours(tier) for tier in ("session", "committing", "clone"))
PACED = _ours("clone", "paced", name="ours, clone, tests of a few ms")
BACK_TO_BACK = _ours("clone", "back_to_back", name="ours, clone, back to back")
COMMITTING_IN_DOCKER = _ours("committing", docker=True)

SUITES = (
    SESSION,
    COMMITTING,
    CLONE,
    Suite("clone a test, as pgtestdb", "clone_a_test", clones=True),
    Suite(
        "pytest-postgresql",
        "with_pytest_postgresql",
        options=("-p", "pytest_postgresql.plugin"),
        prefixed=True,
        clones=True,
    ),
    _ours("session", docker=True),
    COMMITTING_IN_DOCKER,
    _ours("clone", docker=True),
    Suite("testcontainers, create_all", "with_testcontainers", docker=True),
    Suite(
        "pytest-databases, TRUNCATE",
        "with_pytest_databases",
        docker=True,
        options=("-p", "pytest_databases._service"),
        lacks="pytest-databases allows no mount: its data are on disk",
    ),
)
WAITS = (PACED, BACK_TO_BACK)


@dataclass
class Measured:
    """One run of one suite: seconds of setup, call, teardown and the whole of each test."""

    tests: list[tuple[float, float, float, float]]
    seconds: float
    """The whole run, from the start of the process to its end."""


class SuiteFailed(Exception):  # noqa: N818 (it says what is so)
    """A suite did not pass; the message is what pytest said at its end."""


@dataclass(frozen=True)
class Ground:
    """What the suites are run with."""

    python: Path
    """The interpreter of the environment that has the peers."""
    place: Path
    """A directory for what is made on the way, in memory where there is some."""
    tests: int
    prefix: tuple[str, ...]
    """What goes before a command that may not run as root."""
    pg_ctl: str
    peers: Path = PEERS
    """Where the suites' files are."""

    def run(self, suite: Suite) -> Measured:
        """Run the suite once; raises SuiteFailed."""
        place = self.place / "suite"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        shutil.copy(self.peers / f"{suite.conftest}.py", place / "conftest.py")
        shutil.copy(PEERS / "suite.py", place / "test_suite.py")
        (place / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n", encoding="utf-8")
        record, log = place / "record.json", place / "log"
        began = time.perf_counter()
        code = run_to_end(
            self.command(suite, place), log=log, cwd=place, environment=self.environment(suite, record)
        )
        seconds = time.perf_counter() - began
        if code != 0 or not record.exists():
            tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-12:]
            raise SuiteFailed("\n".join(tail) or f"pytest exited with {code}")
        tests = [tuple(parts) for parts in json.loads(record.read_text(encoding="utf-8"))]
        if len(tests) != self.tests:
            raise SuiteFailed(f"{len(tests)} tests were measured and not {self.tests}")
        return Measured(tests, seconds)

    def command(self, suite: Suite, place: Path) -> Sequence[str]:
        return [
            *(self.prefix if suite.prefixed else ()),
            *(str(self.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", RECORDER),
            *suite.options,
            *(f"--basetemp={place / 'tmp'}", "-k", f"test_{suite.tests}", "test_suite.py"),
        ]

    def environment(self, suite: Suite, record: Path) -> dict[str, str]:
        unwanted = ("PYTEST", "POSTGRES", "PG", "TEST_DATABASE", "DATABASE", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        return kept | {
            "PYTHONPATH": str(ROOT),
            # No plugin but those that are asked for: not xdist, not the other peers.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "BENCH_RECORD": str(record),
            "BENCH_TESTS": str(self.tests),
            "BENCH_TIER": suite.tier,
            "BENCH_PACE_SECONDS": str(PACE_SECONDS),
            "BENCH_PLACE": str(self.place),
            "BENCH_PG_CTL": self.pg_ctl,
        }
