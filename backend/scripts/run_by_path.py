"""Support for scripts that are run by their path, perhaps by a Python without our packages."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def use_environment() -> None:
    """Restart the script in `.venv` if this Python lacks our packages, or say how to create it."""
    if find_spec("sqlalchemy") is not None:
        return
    python = ROOT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != python.parent.parent.resolve():
        os.execv(python, [str(python), *sys.argv])  # noqa: S606  no shell
    raise SystemExit(
        f"{sys.executable} does not have this project's packages.\n"
        "Run `nox -s db_init` or `nox -s db_reset`, which also create the environment .venv."
    )


def use_devtools(verb: str) -> None:
    """Run the devtools command instead if it exists, so that a script finds the database like nox.

    A production image has no devtools; there the script works on the configured database.
    """
    if find_spec("devtools") and find_spec("freshpg"):
        command = [sys.executable, "-P", "-m", "devtools.database", verb, *sys.argv[1:]]
        # -P: import from this checkout, not from the current directory.
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.execve(sys.executable, command, os.environ | {"PYTHONPATH": os.pathsep.join(paths)})  # noqa: S606  no shell
