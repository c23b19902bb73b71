"""The whole of it: every question, asked at once, and the page."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.children import sigterm_as_ctrl_c
from devtools.doctor import engine, files, ports, project, python, settings
from devtools.doctor.checkout import Checkout, Once
from devtools.doctor.command import NotThereError, end_all
from devtools.doctor.data import check as check_directories
from devtools.doctor.finding import Finding, State, unknown
from devtools.doctor.probes import Probe, gather
from devtools.doctor.report import Page, as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from devtools.doctor.python import Environment

ROOT = Path(__file__).resolve().parents[3]
WRONG, UNTOLD, INTERRUPTED = 1, 2, 130
# What the modules that run inside an environment find; they cannot be imported outside of it.
SETTINGS_CHECKED = ("settings/checked",)
DATABASE = ("database/server", "database/schema", "database/drift", "database/utc", "database/clock")
TESTS = ("tests/connection", "tests/reaper")
ORDER = ("docker", "compose", "ports", "settings", "files", "disk", "python", "database", "tests")


def probes(checkout: Checkout) -> list[Probe]:
    docker = Once(lambda: engine.look(checkout))
    composed = Once(lambda: project.read(checkout, docker()))
    environment = Once(lambda: python.find(checkout))
    return [
        Probe("Docker", engine.NAMES, lambda: engine.check(docker, is_workspace=checkout.is_workspace)),
        Probe("Compose", project.NAMES, lambda: project.check(checkout, docker, composed), 45),
        Probe("ports", tuple(ports.PORTS), lambda: ports.check(checkout, docker)),
        Probe("settings", settings.NAMES, lambda: settings.check(checkout)),
        Probe("line endings", ("files/line-endings",), lambda: files.check_line_endings(checkout)),
        Probe("room", files.ROOM_NAMES, lambda: files.check_room(checkout, docker)),
        Probe("Python", python.NAMES, lambda: python.check(checkout, environment)),
        Probe("data directories", ("database/directory",), lambda: check_directories(checkout)),
        Probe(
            "database", (*SETTINGS_CHECKED, *DATABASE),
            lambda: asked_inside(checkout, environment, "inside", (*SETTINGS_CHECKED, *DATABASE)), 45,
        ),
        Probe(
            "the tests' containers", TESTS, lambda: asked_inside(checkout, environment, "containers", TESTS), 45
        ),
    ]  # fmt: skip


def asked_inside(
    checkout: Checkout, find: Callable[[], Environment | None], module: str, names: Sequence[str]
) -> list[Finding]:
    """Have a module of this package asked in the project's environment; what it does not come to is unknown."""
    environment = find()
    if environment is None:
        cure = f"{python.make(checkout)}."
        return [
            unknown(name, "No environment has the project's packages to ask with.", cure) for name in names
        ]
    variables = {"PYTHONPATH": str(checkout.root), "PYTHONDONTWRITEBYTECODE": "1"}
    found, late, reason = [], False, f"The Python of {environment.shown} does not run."
    with suppress(NotThereError):
        said = checkout.run(
            str(environment.python), "-m", f"devtools.doctor.{module}", seconds=30, **variables
        )
        for line in said.out.splitlines():
            with suppress(ValueError, TypeError):
                data = json.loads(line)
                found.append(Finding(**{**data, "state": State(data["state"])}))
        late = said.is_late
        reason = (
            "No answer within 30 s." if late else f"{environment.shown} could not ask: {_last(said.error)}."
        )
    told = {finding.name for finding in found}
    cure = "" if late else f"{python.make(checkout)}."
    return found + [unknown(name, reason, cure) for name in names if name not in told]


def _last(error: str) -> str:
    """Return what kind of error a Python ended by; what it says could hold anything."""
    kinds = re.findall(r"^([\w.]+(?:Error|Exception|Exit|Interrupt))\b", error, re.MULTILINE)
    return kinds[-1] if kinds else "it said no reason"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    checkout = Checkout(ROOT, dict(os.environ))
    chosen = [
        probe for probe in probes(checkout) if any(fnmatchcase(name, options.only) for name in probe.names)
    ]
    if not chosen:
        groups = ", ".join(f"'{group}/*'" for group in ORDER)
        sys.stderr.write(f"doctor: nothing that is looked at is named {options.only!r}; there are {groups}\n")
        return UNTOLD
    try:
        with sigterm_as_ctrl_c():
            found = gather(chosen, sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        end_all()
    found = ordered(each for each in found if fnmatchcase(each.name, options.only))
    if not write(found, is_for_program=options.json):
        return UNTOLD
    return WRONG if any(each.state is State.WRONG for each in found) else 0


def write(found: Sequence[Finding], *, is_for_program: bool) -> bool:
    """Print what was found, and return whether that could be done; who reads no further has seen enough."""
    if sys.stdout is None:  # it was closed, and the exit code is all that is wanted
        return True
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The path of the checkout may have letters that the output has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        for line in [as_json(found)] if is_for_program else Page(sys.stdout, os.environ).lines(found):
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as error:
        # Python would try to write the rest once more, at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"doctor: what was found cannot be written: {(error.strerror or '').lower()}\n")
            return False
    return True


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="doctor",
        description="Tell what is well on this machine and in this checkout, and what is not, each with its cure. "
        "Nothing is changed. The exit code is 1 where something is wrong; warnings are allowed.",
    )
    parser.add_argument("--json", action="store_true", help="print a list of {name, state, finding, cure}")
    parser.add_argument(
        "--only", metavar="NAME", default="*", help="one thing, or some: docker/engine, 'ports/*'"
    )
    return parser.parse_args(arguments)


def ordered(found: Iterable[Finding]) -> list[Finding]:
    return sorted(found, key=lambda each: ORDER.index(each.name.partition("/")[0]))
