"""What a script needs that was started by its path, perhaps by a Python that has none of our packages."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def use_environment() -> None:
    """Go on in `.venv` where this Python lacks our packages, or say how to make one. Standard library alone."""
    if find_spec("sqlalchemy") is not None:
        return
    python = ROOT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != python.parent.parent.resolve():
        os.execv(python, [str(python), *sys.argv])  # noqa: S606  a list of arguments, and no shell
    raise SystemExit(
        f"{sys.executable} has none of this project's packages.\n"
        "Make an environment with `nox -s venv`, or run this through nox: `nox -s db_init`, `nox -s db_reset`."
    )
