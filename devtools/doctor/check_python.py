"""Check the Python that runs the doctor, and compare its packages with the lock."""

import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from devtools.doctor.docker_cli import Machine
from devtools.doctor.finding import Finding, few, ok, warning, wrong

LOCK = "requirements/development.txt"
MAKE = "`nox -s tests` installs the environment, like every other session that uses it."
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*([^\\\n]+))?", re.MULTILINE)


def check(machine: Machine) -> Iterator[Finding]:
    yield ok("python", f"Python {sys.version.split()[0]}.")
    # The same path as in noxfile.py.
    name = os.environ.get("UV_PROJECT_ENVIRONMENT") or ".venv"
    place = machine.root / name
    if not (place / "bin" / "python").exists():
        yield warning("packages", f"There is no {name} yet, or its Python does not exist any more.", MAKE)
    elif place.resolve() != Path(sys.prefix).resolve():
        yield warning("packages", f"This Python is in {sys.prefix}, not in {name}.", "Use `nox -s doctor`.")
    else:
        yield compare((machine.root / LOCK).read_text(encoding="utf-8"), name)


def compare(lock: str, environment: str) -> Finding:
    """Compare the packages of this environment with the text of a lock file."""
    wanted = {name: number for name, number, marker in _LOCKED.findall(lock) if _applies(marker.strip())}
    installed = {re.sub(r"[-_.]+", "-", each.name).lower(): each.version for each in distributions()}
    missing = [name for name in (*wanted, "freshpg") if name not in installed]
    other = [f"{name} {installed[name]} instead of {number}" for name, number in wanted.items()
             if installed.get(name, number) != number]  # fmt: skip
    faults = [f"{verb} {few(names)}" for verb, names in (("lacks", missing), ("has", other)) if names]
    if not faults:
        return ok("packages", f"{environment} has the {len(wanted)} packages of the lock.")
    again = f"`rm -f {environment}/.lock-digest`, then any session installs the lock: `nox -s tests`."
    return wrong("packages", f"{environment} differs from {LOCK}: it {' and '.join(faults)}.", again)


def _applies(marker: str) -> bool:
    from packaging.markers import Marker  # noqa: PLC0415  nox's own Python may lack it, and never calls this

    return not marker or Marker(marker).evaluate()
