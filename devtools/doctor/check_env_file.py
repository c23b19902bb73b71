"""Check `.env`: its syntax, names and values, and whether Compose and Python read the same values."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping

from backend import config
from backend.errors import UserError
from devtools.doctor.docker_cli import Machine
from devtools.doctor.finding import Finding, ok, unknown, warning, wrong

FIRST, SECOND = ".env", "backend/.env"
"""Python reads both files, and the first wins; Compose reads only the first."""
ENVIRONMENT_ONLY = re.compile(
    "TEST_DATABASE_URL|POSTGRES_PULL_SECONDS|(TESTCONTAINERS|TC|RYUK|NOX|PYTEST|DOCKER|UV|PG|WATCHFILES).+"
)
# How similar a name must be to count as a misspelling. The environment also has variables of other programs.
_SIMILAR, _VERY_SIMILAR = 0.7, 0.88


def check(machine: Machine) -> Iterator[Finding]:
    try:
        second, first = map(config.read_env_file, config.ENV_FILES)
    except UserError as error:
        yield wrong("files", f"{error}", "See .env.example for how to write each setting.")
        return
    used = " and ".join(name for name, values in ((FIRST, first), (SECOND, second)) if values)
    yield ok("files", f"Settings are in {used}." if used else "There is no .env, and none is needed.")
    yield from list(_names({FIRST: first, SECOND: second})) or [ok("names", "Every name is a setting.")]
    yield from list(_values()) or [ok("values", "Every value is valid.")]
    if machine.docker.compose:
        differing = list(_compose_values(machine, first, second))
        yield from differing or [ok("compose", "Compose and Python read the same values.")]


def _names(files: dict[str, Mapping[str, str | None]]) -> Iterator[Finding]:
    example = (config.ROOT / ".env.example").read_text(encoding="utf-8")
    known = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", example, re.MULTILINE))
    for place, names in (*files.items(), ("The environment", os.environ)):
        in_file = place in files
        for name in names:
            similar = difflib.get_close_matches(name, known, 1, _SIMILAR if in_file else _VERY_SIMILAR)
            if ENVIRONMENT_ONLY.fullmatch(name):
                if in_file:
                    finding = f"{place} has {name}, but that is only read from the environment."
                    yield warning("names", finding, "Export it in your shell.")
            elif name in known or (name.startswith("COMPOSE_") and not similar):
                continue
            elif similar or name.upper() in known:
                cure = f"Write {name.upper() if name.upper() in known else similar[0]}, if that is meant."
                yield warning("names", f"{place} has {name}, which is not a setting.", cure)
            elif in_file:
                # The name is not shown: it may be part of a secret that continues on a second line.
                cure = "Remove it; .env.example has every setting."
                yield warning("names", f"{place} has a name that is not a setting.", cure)


def _values() -> Iterator[Finding]:
    try:
        config.load_settings()
    except UserError as error:
        for line in str(error).splitlines():
            yield wrong("values", line, "See .env.example for how to write each setting.")


def _compose_values(
    machine: Machine, first: Mapping[str, str | None], second: Mapping[str, str | None]
) -> Iterator[Finding]:
    used = set(re.findall(r"\$\{(\w+)", (machine.root / "compose.yaml").read_text(encoding="utf-8")))
    for name in sorted(used & second.keys() - first.keys() - os.environ.keys()):
        finding = f"{SECOND} has {name}, but Compose reads only {FIRST}."
        yield warning("compose", finding, f"Move it to {FIRST}.")
    # Pass a project name, because the directory's name may not give a valid one; that is another finding.
    said = machine.run("docker", "compose", "--project-name", "doctor", "config", "--environment")
    if said.returncode != 0:
        yield unknown("compose", "Compose does not show the values that it reads.")
        return
    for name in sorted(first.keys() - os.environ.keys() - {"COMPOSE_PROJECT_NAME"}):
        if first[name] is not None and f"\n{name}={first[name]}\n" not in f"\n{said.stdout}":
            finding = f"Compose and Python read different values of {name} in {FIRST}."
            cure = "Write NAME='value' in single quotes, with \\' for a single quote and no other backslash."
            yield warning("compose", finding, cure)
