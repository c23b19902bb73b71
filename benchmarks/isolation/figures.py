"""From seconds to what is told: medians over the runs of what was measured within each.

*Isolation* is what a test takes more than the same test on the same server by one Engine with no isolation: what a
way hides in the test itself (a new Engine's connection, statements compiled anew) counts as much as its fixtures.
*Around* is what pytest spends before and after a test, over what it spends around an empty one.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .suites import (
    BACK_TO_BACK,
    CLONE,
    COMMITTING,
    COMMITTING_IN_DOCKER,
    EMPTY,
    PACED,
    SESSION,
    SUITES,
    WAITS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .suites import Measured, Suite

Runs = dict[str, list["Measured"]]
"""What was measured of each suite, by `key`, in the order of the runs."""
Boots = dict[str, list[dict[str, float]]]

SESSION_MS, COMMITTING_MS, AHEAD_MS, NOT_AHEAD_MS = 0.3, 1.5, 5.0, 15.0
TIMES_LESS = 10.0
EMBEDDED_BOOT_SECONDS = 0.2
OF_DOCKER_RUN = 0.7


def key(suite: Suite) -> str:
    """Return what tells the suite from all others, whatever it is called."""
    return f"{suite.group} {suite.tier} {suite.tests}"


@dataclass
class Figures:
    """What is told of one suite; milliseconds but for `run_seconds`."""

    name: str
    docker: bool
    ours: bool
    clones: bool
    run_seconds: float
    tests_seconds: float
    test_p50: float
    test_p95: float
    over_empty_p50: float
    around_p50: float
    around_p95: float
    wait_p50: float
    wait_p95: float
    isolation_p50: float | None = None
    isolation_p95: float | None = None
    isolation_mean: float | None = None
    share: float | None = None
    """Of what its tests take, isolation's part."""
    times_ours: float | None = None
    """Isolation beside ours that commits, on the same kind of server."""

    @property
    def cost(self) -> float:
        """The larger of the two ways to look at it, for promises are kept by both."""
        return max(self.isolation_p50 or 0.0, self.around_p50)


def suite_figures(runs: Runs) -> list[Figures]:
    """Return the figures of all suites that have them, with the waits for clones at the end."""
    found = {
        key(suite): _figures(suite, runs)
        for suite in (*SUITES, *WAITS)
        if key(suite) in runs and EMPTY_KEY in runs
    }
    for suite in SUITES:
        figures = found.get(key(suite))
        base = found.get(key(COMMITTING_IN_DOCKER if suite.docker else COMMITTING))
        least = base.isolation_mean if base else None
        if figures and figures.isolation_mean is not None and least is not None and least > 0:
            figures.times_ours = figures.isolation_mean / least
    return list(found.values())


EMPTY_KEY = key(EMPTY)


def _figures(suite: Suite, runs: Runs) -> Figures:
    measured, empty = runs[key(suite)], runs[EMPTY_KEY]
    baseline = runs.get(key(suite.baseline)) if suite not in WAITS else None

    def middle(per_run: Callable[[Measured, Measured], float]) -> float:
        return 1000 * statistics.median(
            per_run(run, none) for run, none in zip(measured, empty, strict=False)
        )

    figures = Figures(
        suite.name,
        suite.docker,
        suite.is_ours,
        suite.clones,
        run_seconds=statistics.median(run.seconds for run in measured),
        tests_seconds=middle(lambda run, _: sum(wholes(run))) / 1000,
        test_p50=middle(lambda run, _: p50(wholes(run))),
        test_p95=middle(lambda run, _: p95(wholes(run))),
        over_empty_p50=middle(lambda run, none: p50(wholes(run)) - p50(wholes(none))),
        around_p50=middle(lambda run, none: p50(arounds(run)) - p50(arounds(none))),
        around_p95=middle(lambda run, none: p95(arounds(run)) - p50(arounds(none))),
        wait_p50=middle(lambda run, none: p50(setups(run)) - p50(setups(none))),
        wait_p95=middle(lambda run, none: p95(setups(run)) - p50(setups(none))),
    )
    if baseline:
        pairs = list(zip(measured, baseline, strict=False))

        def over(of: Callable[[Sequence[float]], float], base: Callable[[Sequence[float]], float]) -> float:
            return 1000 * statistics.median(of(wholes(run)) - base(wholes(plain)) for run, plain in pairs)

        figures.isolation_p50 = over(p50, p50)
        figures.isolation_p95 = over(p95, p50)
        figures.isolation_mean = over(statistics.fmean, statistics.fmean)
        figures.share = max(
            0.0, figures.isolation_mean / (figures.tests_seconds * 1000 / len(measured[0].tests))
        )
    return figures


def setups(run: Measured) -> list[float]:
    return [setup for setup, _, _, _ in run.tests]


def arounds(run: Measured) -> list[float]:
    return [setup + teardown for setup, _, teardown, _ in run.tests]


def wholes(run: Measured) -> list[float]:
    return [whole for _, _, _, whole in run.tests]


def p50(values: Sequence[float]) -> float:
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.95 * len(values)))]


@dataclass
class Boot:
    """Seconds from a fresh process's wish for a server to the answer to its first query."""

    name: str
    median: float
    least: float
    most: float
    imports: float
    of_docker_run: float | None


def boot_figures(boots: Boots) -> list[Boot]:
    medians = {
        way: statistics.median(each["seconds"] for each in runs) for way, runs in boots.items() if runs
    }
    base = medians.get("docker run")
    return [
        Boot(
            way,
            middle,
            min(each["seconds"] for each in boots[way]),
            max(each["seconds"] for each in boots[way]),
            statistics.median(each["imports"] for each in boots[way]),
            middle / base if base else None,
        )
        for way, middle in medians.items()
    ]


@dataclass
class Verdict:
    """One promise, beside what was measured."""

    promise: str
    figure: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def holds(self) -> bool:
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound


def verdicts(figures: Sequence[Figures], boots: Sequence[Boot]) -> list[Verdict]:
    """Return a verdict on each promise for which there are figures."""
    of = {each.name: each for each in figures if not each.docker}
    booted = {boot.name: boot for boot in boots}
    found = []
    for suite, bound in ((SESSION, SESSION_MS), (COMMITTING, COMMITTING_MS)):
        if suite.name in of:
            found.append(
                Verdict(f"{suite.name}: isolation or around, the larger", of[suite.name].cost, bound, "ms")
            )
    peers = [each for each in figures if each.clones and each.isolation_p50 is not None]
    if peers and COMMITTING.name in of:
        best = min(peers, key=lambda each: each.isolation_p50 or 0)
        times = (best.isolation_p50 or 0) / max(of[COMMITTING.name].cost, 1e-6)
        found.append(
            Verdict(
                f"{COMMITTING.name}: less than {best.name}",
                times,
                TIMES_LESS,
                "times",
                at_least=True,
            )
        )
    for suite, bound, what in ((PACED, AHEAD_MS, "ahead"), (BACK_TO_BACK, NOT_AHEAD_MS, "not ahead")):
        if suite.name in of:
            wait = of[suite.name].wait_p50
            found.append(Verdict(f"{CLONE.name}: waited, the maker {what}", wait, bound, "ms"))
    if "ours, embedded" in booted:
        found.append(
            Verdict(
                "embedded: boot to first query", booted["ours, embedded"].median, EMBEDDED_BOOT_SECONDS, "s"
            )
        )
    in_docker = booted.get("ours, in Docker")
    if in_docker is not None and in_docker.of_docker_run is not None:
        found.append(
            Verdict("in Docker: boot, beside docker run", in_docker.of_docker_run, OF_DOCKER_RUN, "times")
        )
    return found


def as_json(figures: Sequence[Figures], boots: Sequence[Boot]) -> dict[str, Any]:
    return {
        "suites": [asdict(each) for each in figures],
        "boots": [asdict(each) for each in boots],
        "verdicts": [asdict(each) | {"holds": each.holds} for each in verdicts(figures, boots)],
    }
