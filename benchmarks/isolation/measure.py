"""Run everything in turns, and keep what was measured."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

from devtools.children import run_to_end

from .boot import WAYS
from .figures import key
from .suites import EMPTY, ROOT, SUITES, WAITS, SuiteFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.progress import Progress, TaskID

    from .figures import Boots, Runs
    from .suites import Ground, Suite

_IN_DOCKER = ("ours, in Docker", "docker run", "testcontainers")


class Measurement:
    """The runs of all suites and the boots of all servers; what fails once is left out from then on, and told."""

    def __init__(self, ground: Ground, *, docker: bool, prefixed: bool) -> None:
        self._ground = ground
        self.runs: Runs = {}
        self.boots: Boots = {}
        self.failures: list[str] = []
        chosen = [suite for suite in (*SUITES, *WAITS) if docker or not suite.docker]
        if not prefixed:
            chosen = [suite for suite in chosen if not suite.prefixed]
            self.failures.append("left out: pytest-postgresql, for as root it needs a user namespace")
        self._suites = {key(suite): suite for suite in in_order(chosen)}
        self._ways = [
            way
            for way in WAYS
            if (docker or way not in _IN_DOCKER) and (prefixed or way != "pytest-postgresql")
        ]

    def run(self, runs: int, progress: Progress) -> None:
        # Once more for the boots, whose first is what fills the caches.
        total = runs * len(self._suites) + (runs + 1) * len(self._ways)
        task = progress.add_task("", total=total)
        for number in range(runs):
            suites = list(self._suites.values())
            for suite in suites if number % 2 == 0 else reversed(suites):
                self._run_suite(suite, progress, task)
        for number in range(runs + 1):
            for way in list(self._ways):
                self._boot(way, progress, task, keep=number > 0)

    def _run_suite(self, suite: Suite, progress: Progress, task: TaskID) -> None:
        progress.update(task, description=suite.name)
        try:
            self.runs.setdefault(key(suite), []).append(self._ground.run(suite))
        except SuiteFailed as error:
            self._suites.pop(key(suite))
            self.runs.pop(key(suite))
            self.failures.append(f"left out, for it failed: {suite.name}\n{error}")
        progress.advance(task)

    def _boot(self, way: str, progress: Progress, task: TaskID, *, keep: bool) -> None:
        progress.update(task, description=f"boot: {way}")
        output, ground = self._ground.place / "boot.json", self._ground
        prefix = ground.prefix if way == "pytest-postgresql" else ()
        environment = ground.environment(EMPTY, output) | {"BENCH_PORT": str(_free_port())}
        code = run_to_end(
            [*prefix, str(ground.python), "-m", "benchmarks.isolation.boot", way],
            log=output,
            cwd=ROOT,
            environment=environment,
        )
        said = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if code == 0 and keep:
            self.boots.setdefault(way, []).append(json.loads(said[-1]))
        elif code != 0:
            self._ways.remove(way)
            self.boots.pop(way, None)
            self.failures.append(
                f"left out, for it failed: boot: {way}{os.linesep}" + os.linesep.join(said[-5:])
            )
        progress.advance(task)


def in_order(suites: Sequence[Suite]) -> Iterator[Suite]:
    """Put each group beside what it is compared with, for neighbours in time meet the same machine."""
    yield EMPTY
    groups = dict.fromkeys(suite.group for suite in suites)
    for group in groups:
        members = [suite for suite in suites if suite.group == group]
        yield members[0].baseline
        yield from members


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
