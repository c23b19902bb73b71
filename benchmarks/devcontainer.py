"""How long the dev container takes, what the images weigh, and what rests in memory."""

import random
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from e2e.workspace import Workspace, devcontainer_cli, take_out

OPEN, REOPEN = "devcontainer up, new volumes, images there", "devcontainer up, stopped before"
CODE, DEPENDENCY = "the container made anew, after a change of code", "... after a change of the lock"
GREEN = "opened and the suite green inside, on two workers (once)"
BASE = "python:3.14-slim"
# Packages that no other needs, nor what is measured.
LEAVES = (
    "debugpy", "fastapi-offline", "httpx2", "hypothesis", "import-linter", "mypy", "pre-commit", "pytest-randomly",
    "ruff", "testcontainers",
)  # fmt: skip

Timed = Callable[[str, Callable[[], object]], None]


def measure(runs: int, timed: Timed) -> None:
    """Hand each measurement to `timed`, as what it is and what to call; print sizes and memory."""
    devcontainer_cli()
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        workspace = Workspace(Path(place) / "workspace")
        try:
            workspace.up()
            for number in track(range(runs), "Opening", console=Console(stderr=True), transient=True):
                measure_once(workspace, timed, first=number == 0)
            show_memory(workspace)
            show_sizes(workspace)
        finally:
            workspace.clean()
            for image in ("bench-prod", "bench-api"):
                workspace.checkout.run("docker", "rmi", "--force", image, check=False)


def measure_once(workspace: Workspace, timed: Timed, *, first: bool) -> None:
    workspace.compose("down", "--volumes")
    if first:

        def green() -> None:
            workspace.up()
            workspace.run("nox", "-s", "tests", "--", "-n", "2", seconds=1800)

        timed(GREEN, green)
        workspace.compose("down", "--volumes")
    timed(OPEN, workspace.up)
    workspace.compose("stop")
    timed(REOPEN, workspace.up)
    change(workspace.path / "backend" / "main.py")
    timed(CODE, lambda: workspace.up("--remove-existing-container"))
    lock = workspace.path / "requirements" / "development.txt"
    workspace.checkout.run("git", "checkout", "--quiet", str(lock.relative_to(workspace.path)))
    # Other packages each time, for an environment that was built before is had from the builder's cache.
    take_out(lock, *random.sample(LEAVES, len(LEAVES) // 2))
    timed(DEPENDENCY, lambda: workspace.up("--remove-existing-container"))


def change(path: Path) -> None:
    path.write_text(path.read_text() + "# changed\n")


def show_memory(workspace: Workspace) -> None:
    """Print what rests in memory ten seconds after the last opening, with Compose's API beside."""
    workspace.compose("up", "--detach", "--wait", "api")
    workspace.run("sleep", "10")
    rows = workspace.checkout.run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}")
    ours = [
        row.removeprefix(f"{workspace.project}-") for row in rows.splitlines() if workspace.project in row
    ]
    show("Memory at rest", [tuple(row.partition(" / ")[0].rsplit(" ", 1)) for row in ours])


def show_sizes(workspace: Workspace) -> None:
    for target in ("api", "prod"):
        build = ("--file", "backend/Dockerfile", "--target", target, "--tag", f"bench-{target}", ".")
        workspace.checkout.run("docker", "build", "--quiet", *build, seconds=900)
    images = {"prod": "bench-prod", "api": "bench-api", "dev": f"{workspace.project}-workspace"}
    base = size(workspace, BASE)
    rows = [(name, f"{(size(workspace, image) - base) / 1e6:.1f} MB") for name, image in images.items()]
    show(f"What each image adds to {BASE}", rows)


def size(workspace: Workspace, image: str) -> int:
    layers = workspace.checkout.run("docker", "history", "--human=false", "--format", "{{.Size}}", image)
    return sum(int(layer) for layer in re.findall(r"\d+", layers))


def show(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
