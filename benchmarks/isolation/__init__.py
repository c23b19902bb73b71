"""What keeping tests apart costs, ours beside its peers, and how soon a server answers.

The peers are installed for the purpose, into an environment under .nox that later runs use again; ours runs in the same
one. Each suite is the same tests in a process of its own, and all suites take turns, so that the machine's moods are
the same for all. Without Docker the ways that need it are left out, and that is said.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.isolation import figures, tables
from benchmarks.isolation.measure import Measurement
from benchmarks.isolation.suites import PEERS, ROOT, SUITES, Ground
from devtools.children import sigterm_as_ctrl_c
from devtools.environments import EnvironmentUnavailable, environment
from freshpg import PostgresUnavailable, choose, find_binaries
from freshpg.identity import preferred_identity

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACE = ROOT / os.environ.get("NOX_ENVDIR", ".nox") / "bench-isolation"
PACKAGES = (
    "psycopg",
    "pytest",
    "pytest-databases",
    "pytest-postgresql",
    "sqlalchemy",
    "testcontainers",
)
_INTERRUPTED = 130


def main(runs: int, tests: int, json_file: Path | None = None, plot: Path | None = None) -> None:
    """Measure, print the tables, and write the JSON file and the plot where they are asked for."""
    console = Console()
    try:
        with sigterm_as_ctrl_c():
            _main(console, runs, tests, json_file, plot)
    except KeyboardInterrupt:
        console.print("Interrupted.", style="yellow")
        sys.exit(_INTERRUPTED)
    except (EnvironmentUnavailable, PostgresUnavailable) as error:
        sys.exit(str(error))


def _main(console: Console, runs: int, tests: int, json_file: Path | None, plot: Path | None) -> None:
    files = [ROOT / "requirements" / "development.txt", PEERS / "requirements.txt"]
    with Console(stderr=True).status("Installing the peers"):
        python = environment(PLACE, files)
    without_docker = docker_is_missing()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=in_memory()) as place:
        identity = preferred_identity()
        ground = Ground(python, Path(place), tests, identity.prefix, find_binaries().program("pg_ctl"))
        measurement = Measurement(ground, docker=without_docker is None, prefixed=identity.uid is None)
        with Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        ) as progress:
            measurement.run(runs, progress)
    found, boots = figures.suite_figures(measurement.runs), figures.boot_figures(measurement.boots)
    facts = about(python, runs, tests)
    tables.show(console, facts, found, boots)
    judged = figures.verdicts(found, boots)
    console.print(tables.verdict_table(judged))
    remarks = [suite.lacks for suite in SUITES if suite.lacks and figures.key(suite) in measurement.runs]
    if without_docker is not None:
        remarks.append(f"left out, for {without_docker}: whatever needs Docker")
    for remark in [*remarks, *measurement.failures]:
        console.print(f"- {remark}", style="dim", highlight=False)
    console.print(describe(facts), style="dim", highlight=False)
    written = facts | {"remarks": [*remarks, *measurement.failures]} | figures.as_json(found, boots)
    if json_file is not None:
        json_file.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        draw(python, written, plot)
    if not found:
        sys.exit("Nothing could be measured.")


def docker_is_missing() -> str | None:
    try:
        choose("docker")
    except PostgresUnavailable as error:
        return str(error).splitlines()[0].rpartition("cannot be had: ")[2].rstrip(".")
    return None


def in_memory() -> str | None:
    """Return where files lie in memory, or nothing for the usual place."""
    memory = Path("/dev/shm")  # noqa: S108 (what is made there has a random name and is this user's alone)
    return str(memory) if memory.is_dir() and os.access(memory, os.W_OK) else None


def about(python: Path, runs: int, tests: int) -> dict[str, Any]:
    """Return what the figures were taken with: the machine, the versions."""
    ask = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    answer = subprocess.run([python, "-c", ask, *PACKAGES], capture_output=True, text=True, check=True)
    return {
        "runs": runs,
        "tests": tests,
        "postgres": find_binaries().version,
        "machine": f"{processor()}, {os.cpu_count()} processors, {platform.system()}",
        "python": platform.python_version(),
        "versions": json.loads(answer.stdout),
    }


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def describe(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"{facts['machine']}; Python {facts['python']}, {versions}"


def draw(python: Path, written: dict[str, Any], plot: Path) -> None:
    """Draw the plot where the library for it is."""
    command: Sequence[str | Path] = [python, "-m", "benchmarks.isolation.plot", plot.resolve()]
    subprocess.run(command, cwd=ROOT, input=json.dumps(written), text=True, check=True)
