"""How long a developer waits: for Compose, a saved file, a start without Docker, a stop, and the dev container."""

import os
import platform
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import devcontainer
from e2e.checkout import Checkout, answers, copy_checkout, wait_until

Seconds = dict[str, list[float]]

DATABASE, EVERYTHING = "docker compose up -d --wait db", "docker compose up -d --wait"
SAVED, STOP = "a saved file answers anew", "docker compose stop, idle"
DEV, DEV_STOP = "nox -s dev, a later start", "its Ctrl-C"


def main(runs: int) -> None:
    seconds: Seconds = {name: [] for name in (DATABASE, EVERYTHING, SAVED, STOP, DEV, DEV_STOP)}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        checkout = Checkout(copy_checkout(Path(place) / "checkout"))
        try:
            prepare(checkout)
            for number in track(range(runs), "Measuring", console=Console(stderr=True), transient=True):
                measure_compose(checkout, seconds, number)
                measure_dev(checkout, seconds)
        finally:
            checkout.compose("down", "--volumes", "--rmi", "local", check=False)

    def measured(what: str, work: Callable[[], object]) -> None:
        with timed(seconds.setdefault(what, [])):
            work()

    devcontainer.measure(runs, measured)
    show(seconds, runs)


def prepare(checkout: Checkout) -> None:
    """Have images, environment and data at hand: what is measured is what one waits for every day."""
    checkout.compose("up", "--detach", "--wait")
    checkout.compose("down", "--volumes")
    with serving(checkout):
        pass


def measure_compose(checkout: Checkout, seconds: Seconds, number: int) -> None:
    """Take Compose up on a new volume each time, the database alone and everything by turns."""
    with timed(seconds[DATABASE]):
        checkout.compose("up", "--detach", "--wait", "db")
    checkout.compose("down", "--volumes")
    with timed(seconds[EVERYTHING]):
        checkout.compose("up", "--detach", "--wait")
    health = checkout.path / "backend" / "routers" / "health.py"
    text = health.read_text()
    with timed(seconds[SAVED]):
        health.write_text(text.replace('"/live"', f'"/alive-{number}"'))
        wait_until(lambda: answers(f"{checkout.url}/health/alive-{number}"), seconds=30, what=SAVED)
    with timed(seconds[STOP]):
        checkout.compose("stop")
    health.write_text(text)
    checkout.compose("down", "--volumes")


def measure_dev(checkout: Checkout, seconds: Seconds) -> None:
    with ExitStack() as running:
        with timed(seconds[DEV]):
            running.enter_context(serving(checkout))
        with timed(seconds[DEV_STOP]):
            running.close()


@contextmanager
def serving(checkout: Checkout) -> Iterator[None]:
    """Run `nox -s dev` without Docker for as long as the context lasts."""
    process = subprocess.Popen(
        ["nox", "-s", "dev"],  # noqa: S607  as a person types it
        cwd=checkout.path,
        env=checkout.environment | {"DOCKER_HOST": "unix:///nonexistent"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(
            lambda: answers(f"{checkout.url}/health/ready") or process.poll() is not None,
            seconds=300,
            what=DEV,
        )
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


@contextmanager
def timed(results: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    results.append(time.perf_counter() - began)


def show(seconds: Seconds, runs: int) -> None:
    table = Table(
        title=f"Seconds, {runs} runs: {platform.machine()}, {os.cpu_count()} processors", title_justify="left"
    )
    for column in ("what", "median", "least", "most", "to the database alone"):
        table.add_column(column, justify="left" if column == "what" else "right")
    base = statistics.median(seconds[DATABASE])
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        table.add_row(
            name, *(f"{value:.2f}" for value in (middle, min(taken), max(taken))), f"{middle / base:.2f}"
        )
    Console().print(table)
