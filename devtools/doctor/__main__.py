"""Show what works on this machine and in this checkout, what does not, and what to do about it.

Nothing is changed. The exit code is 1 if something is wrong; warnings do not count.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

from backend.errors import UserError
from devtools.doctor import check_compose, check_disk, check_docker, check_python
from devtools.doctor.check_python import MAKE
from devtools.doctor.docker_cli import Machine, examine
from devtools.doctor.finding import Finding, State, unknown

ROOT = Path(__file__).resolve().parents[2]
WRONG, INTERRUPTED = 1, 130
SUBJECTS = ("docker", "compose", "settings", "ports", "disk", "environment", "database", "tests")
CHECKS: dict[str, Callable[[Machine], Iterable[Finding]]] = {
    "docker": check_docker.check,
    "compose": check_compose.check,
    "disk": check_disk.check,
    "environment": check_python.check,
}
MISSING = ""
try:
    from devtools.doctor import check_database, check_env_file, check_ports, check_test_server, report
except ModuleNotFoundError as error:  # this is not the project's environment, or it is incomplete
    MISSING = error.name or "a package"
    for _subject in set(SUBJECTS) - CHECKS.keys():
        CHECKS[_subject] = lambda _: [unknown("check", "This Python lacks the project's packages.", MAKE)]
else:
    CHECKS["settings"] = check_env_file.check
    CHECKS["ports"] = check_ports.check
    CHECKS["database"] = check_database.check
    CHECKS["tests"] = check_test_server.check


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nox -s doctor --", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a list of {name, state, finding, cure}")
    parser.add_argument("--only", choices=SUBJECTS, help="check only this subject")
    options = parser.parse_args(arguments)
    machine = examine(ROOT)
    subjects = [options.only] if options.only else SUBJECTS
    with ThreadPoolExecutor(len(SUBJECTS)) as pool:
        found = list(chain.from_iterable(pool.map(lambda subject: look(subject, machine), subjects)))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without these characters shows question marks
    if options.json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    elif MISSING:  # the missing package may be Rich
        for each in found:
            print(f"{each.state:8} {each.name}: {each.finding}")
        print(f"{MISSING} is not installed for this Python. {MAKE}")
    else:
        report.print_report(found)
    return WRONG if any(each.state is State.WRONG for each in found) else 0


def look(subject: str, machine: Machine) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(CHECKS[subject](machine))
    except UserError:
        found.append(unknown("check", "Correct the settings first."))
    except Exception as error:  # noqa: BLE001  one check must not end the others, and its text may hold a secret
        found.append(unknown("check", f"The check failed with {type(error).__name__}."))
    return [replace(each, name=f"{subject}/{each.name}") for each in found]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
