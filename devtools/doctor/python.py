"""This Python, the project's environment, and what is in it beside the lock."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.doctor.command import NotThereError
from devtools.doctor.finding import Finding, ok, unknown, warning, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devtools.doctor.checkout import Checkout

NAMES = ("python/version", "python/environment", "python/packages")
OLDEST, NEWEST = (3, 11), (3, 14)
WANTED = "Python 3.11 to 3.14"
LOCK = "requirements/development.txt"
BY_HAND = '`python3 -m venv .venv && .venv/bin/pip install -q "nox[uv]" && .venv/bin/nox -s venv`'
ANEW = f"`rm -r .venv`, then {BY_HAND}."
SHOWN = 3
# Without these nothing of the project can be imported.
_NEEDED = ("alembic", "fastapi", "psycopg", "pydantic_settings", "sqlalchemy")


@dataclass(frozen=True)
class Environment:
    """An environment and its Python."""

    python: Path
    shown: str
    has_packages: bool


def find(checkout: Checkout) -> Environment | None:
    """Return the environment that has the project's packages: `.venv`, this Python's own, one that nox made."""
    return next((each for each in environments(checkout) if each.has_packages), None)


def environments(checkout: Checkout) -> Iterator[Environment]:
    named = checkout.environment.get("VIRTUAL_ENV")
    nox = checkout.root / (checkout.environment.get("NOX_ENVDIR") or ".nox")
    places = [checkout.root / ".venv", Path(sys.prefix), *([Path(named)] if named else [])]
    for place in (*places, *(sorted(nox.iterdir()) if nox.is_dir() else ())):
        python = Path(sys.executable) if place == Path(sys.prefix) else place / "bin" / "python"
        if python.exists():
            yield Environment(python, checkout.shown(place), has_packages(place))


def has_packages(place: Path) -> bool:
    return any(
        all((each / name).is_dir() for name in _NEEDED) for each in place.glob("lib/python3*/site-packages")
    )


def make(checkout: Checkout) -> str:
    """Return the command by which `.venv` is made complete here: nox's, or the README's line where there is no nox."""
    if (checkout.root / ".venv" / "bin" / "nox").exists():
        return "`.venv/bin/nox -s venv`"
    return "`nox -s venv`" if shutil.which("nox", path=checkout.environment.get("PATH", "")) else BY_HAND


def check(checkout: Checkout, ask: Callable[[], Environment | None]) -> list[Finding]:
    return [*_version(), *_environment(checkout, ask())]


def _version() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] > NEWEST:
        yield warning(NAMES[0], f"This is Python {version}, and what is tried is {WANTED}.", f"Use {WANTED}.")
    else:
        yield ok(NAMES[0], f"Python {version}.")


def _environment(checkout: Checkout, used: Environment | None) -> Iterator[Finding]:
    place = checkout.root / ".venv"
    is_there, python = os.path.lexists(place), place / "bin" / "python"
    if is_there and not python.exists():
        yield wrong(NAMES[1], ".venv has no Python, or one that is gone from this machine.", ANEW)
    elif is_there and (version := version_of(place)) and version < OLDEST:
        yield wrong(
            NAMES[1],
            f".venv is of Python {'.'.join(map(str, version))}, and the project needs {WANTED}.",
            ANEW,
        )
    elif used is None:
        yield warning(
            NAMES[1],
            "No environment has the project's packages: neither .venv nor nox's.",
            f"{make(checkout)}.",
        )
    else:
        yield ok(NAMES[1], f"{used.shown} has the project's packages.")
    subject = Environment(python, ".venv", has_packages(place)) if python.exists() else used
    if subject is None:
        yield unknown(NAMES[2], "There is no environment to compare with the lock.", f"{make(checkout)}.")
    else:
        yield _packages(checkout, subject)


def version_of(place: Path) -> tuple[int, ...]:
    """Read which Python an environment is of, without running it; nothing where it does not say."""
    try:
        text = (place / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    found = re.search(r"^version(?:_info)?\s*=\s*(\d+)\.(\d+)", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else ()


def _packages(checkout: Checkout, environment: Environment) -> Finding:
    name, shown = NAMES[2], environment.shown
    if not (checkout.root / LOCK).is_file():
        return unknown(name, f"{LOCK} is not there.", f"`git checkout -- {LOCK}`.")
    script = Path(__file__).with_name("installed.py")
    try:
        said = checkout.run(str(environment.python), "-B", "-I", str(script), LOCK, seconds=15)
        beside = json.loads(said.out)
    except (NotThereError, ValueError):
        return unknown(name, f"The Python of {shown} could not be asked what it has.", f"{make(checkout)}.")
    missing, other, count = beside["missing"], beside["other"], beside["count"]
    if not missing and not other:
        return ok(name, f"{shown} has the {count} packages of the lock.")
    if not environment.has_packages:
        # As the README's first line leaves it, which is enough for nox.
        return warning(
            name,
            f"{shown} has {count - len(missing)} of the {count} packages of the lock.",
            f"{make(checkout)}.",
        )
    parts = []
    if missing:
        parts.append(f"lacks {_few(missing)}")
    if other:
        parts.append(f"has {_few([f'{each} {have} for {wanted}' for each, have, wanted in other])}")
    return wrong(name, f"{shown} is not what {LOCK} says: it {' and '.join(parts)}.", f"{make(checkout)}.")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
