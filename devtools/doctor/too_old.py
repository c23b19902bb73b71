"""What is said by a Python that is too old for the rest. Python 3.6 can read this, and has to."""

import json
import os
import shlex
import shutil
import subprocess
import sys

WANTED = "Python 3.11 to 3.14"
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")
SECONDS = 5


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  pathlib would do no better
    version = ".".join(str(part) for part in sys.version_info[:3])
    finding = f"This is Python {version}, and the project needs {WANTED}."
    newer = find_newer(os.path.dirname(os.path.dirname(os.path.dirname(here))))  # noqa: PTH120  as above
    again = f"`{newer} {shlex.quote(os.path.relpath(here))}`" if newer else ""
    cure = f"Run it by the one that is here: {again}." if newer else f"Install {WANTED}, and run this by it."
    if "--json" in sys.argv[1:]:
        found = {"name": "python/version", "state": "wrong", "finding": finding, "cure": cure}
        sys.stdout.write(json.dumps([found], indent=2) + "\n")
    else:
        sys.stdout.write(finding + "\n" + cure + "\n")
    return 1


def find_newer(root: str) -> str:
    """Return the command of a Python that would do, which was tried, or an empty string."""
    for name in (os.path.join(root, ".venv", "bin", "python"), *NEWER):  # noqa: PTH118  as above
        path = shutil.which(name)
        if path and is_new_enough(path):
            return name if name in NEWER else os.path.relpath(path)
    return ""


def is_new_enough(path: str) -> bool:
    # Some are there by name only: a shim of a version that was not chosen.
    test = "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))"
    try:
        done = subprocess.run(
            [path, "-I", "-c", test], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
