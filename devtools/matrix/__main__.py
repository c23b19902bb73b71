"""The command behind `nox -s tests_matrix`."""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from devtools.children import run_to_end, sigterm_as_ctrl_c
from devtools.environments import EnvironmentUnavailable, environment

from .combinations import DEFAULT_PYTHON, Combination, combinations, find_python, missing
from .outcomes import Row, read_junit
from .report import show, show_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.status import Status

ROOT = Path(__file__).resolve().parents[3]
PLACE = ROOT / os.environ.get("NOX_ENVDIR", ".nox") / "matrix"
_CHOSEN_HERE = ("--postgres", "--postgres-image", "--junit-xml", "--junitxml")
_INTERRUPTED = 130


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the matrix's own options, and what is pytest's."""
    parser = argparse.ArgumentParser(
        prog="nox -s tests_matrix --",
        description="Run the suite on every PostgreSQL and Python that are here; other arguments are pytest's.",
        allow_abbrev=False,
    )
    parser.add_argument("--list", action="store_true", help="show the combinations, and run nothing")
    parser.add_argument(
        "--only",
        metavar="WORD",
        action="append",
        default=[],
        help="the combinations whose name has WORD in it, as postgres:15, embedded or 'Python 3.12'; may be repeated",
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail where a combination is not here, as in CI"
    )
    options, for_pytest = parser.parse_known_args(arguments)
    for argument in for_pytest:
        if argument.partition("=")[0] in _CHOSEN_HERE:
            parser.error(f"{argument} is the matrix's to choose: --only WORD takes some of its combinations")
    chosen = [
        each
        for each in combinations()
        if not options.only
        or any(word.lower() in f"{each.name} {each.image or ''}".lower() for word in options.only)
    ]
    if not chosen:
        parser.error(f"no combination has {' or '.join(options.only)} in its name: see --list")
    options.chosen = chosen
    return options, for_pytest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; return 0, or 1 where a combination failed, none could be run, or --strict misses one."""
    options, for_pytest = parse(arguments)
    console = Console()
    if options.list:
        show_list(console, ((each, missing(each, look_only=True)) for each in options.chosen))
        return 0
    PLACE.mkdir(parents=True, exist_ok=True)
    if not any("randomly" in argument for argument in for_pytest):
        # One order for all, or what differs could be the order's doing.
        for_pytest = [f"--randomly-seed={random.randrange(2**32)}", *for_pytest]  # noqa: S311 (an order, no secret)
    rows: list[Row] = []
    interrupted = False
    try:
        with sigterm_as_ctrl_c():
            for number, combination in enumerate(options.chosen, start=1):
                of_all = f"{number}/{len(options.chosen)} {combination.name}"
                with Console(stderr=True).status(of_all) as status:
                    rows.append(run(combination, for_pytest, status, of_all))
    except KeyboardInterrupt:
        interrupted = True
    show(console, rows, Path(os.path.relpath(PLACE)))
    if interrupted:
        console.print(Text("Interrupted: the other combinations were not run.", "yellow"))
        return _INTERRUPTED
    ran = [row for row in rows if row.ran]
    has_failed = any(row.exit_code for row in ran) or not ran
    return 1 if has_failed or (options.strict and len(ran) < len(rows)) else 0


def run(combination: Combination, for_pytest: Sequence[str], status: Status, label: str) -> Row:
    """Run the suite in one combination."""
    absence = missing(combination)
    if absence is not None:
        return Row(combination, absence)
    try:
        interpreter = python_of(combination)
    except EnvironmentUnavailable as error:
        return Row(combination, f"its packages cannot be installed ({error})")
    path = os.pathsep.join([str(interpreter.parent), os.environ.get("PATH", "")])
    # Of this run alone: two in one checkout are not in each other's way.
    with tempfile.TemporaryDirectory(prefix="matrix-") as place:
        log, junit = Path(place) / "log", Path(place) / "junit.xml"
        began = time.monotonic()
        code = run_to_end(
            [
                *(str(interpreter), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *("-o", "junit_family=xunit1", f"--junit-xml={junit}"),
                *combination.options,
                *for_pytest,
            ],
            log=log,
            cwd=ROOT,
            environment={**os.environ, "PATH": path, "VIRTUAL_ENV": str(interpreter.parents[1])},
            meanwhile=lambda: status.update(f"{label}{progress(log)}"),
        )
        seconds = time.monotonic() - began
        if code != 0:
            shutil.copy(log, PLACE / f"{combination.file_name}.log")
        return Row(combination, exit_code=code, seconds=seconds, outcomes=read_junit(junit))


def python_of(combination: Combination) -> Path:
    """Return the Python of the environment for this combination: this one's own, or one under .nox."""
    if combination.python == DEFAULT_PYTHON:
        return Path(sys.executable)
    found = find_python(combination.python)
    if found is None:
        raise EnvironmentUnavailable(f"no Python {combination.python} on this machine")
    locked = ROOT / "requirements" / "development.txt"
    return environment(PLACE / f"python-{combination.python}", [locked], python=found)


def progress(log: Path) -> str:
    """Return how far pytest says that it is, in the words of its progress, if it has said so yet."""
    percent: list[str] = []
    with suppress(OSError):
        percent = re.findall(r"\[ *(\d+%)\]", log.read_text(encoding="utf-8", errors="replace"))
    return f" {percent[-1]}" if percent else ""


if __name__ == "__main__":
    sys.exit(main())
