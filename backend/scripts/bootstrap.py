"""What a script needs that was started by its path, perhaps by a Python that has none of our packages."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def use_environment() -> None:
    """Continue in `.venv` if this Python lacks our packages, or say how to create it. Standard library only."""
    if find_spec("sqlalchemy") is not None:
        return
    python = ROOT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != python.parent.parent.resolve():
        os.execv(python, [str(python), *sys.argv])  # noqa: S606  a list of arguments, and no shell
    raise SystemExit(
        f"{sys.executable} has none of this project's packages.\n"
        "Run `nox -s db_init` or `nox -s db_reset`, which also create the environment .venv."
    )


def use_ladder(verb: str) -> None:
    """Continue as the developer's command if that is here, so that a script finds the database as nox does.

    An image has the script alone, which works on the configured database.
    """
    if find_spec("devtools") and find_spec("freshpg"):
        command = [sys.executable, "-P", "-m", "devtools.database", verb, *sys.argv[1:]]
        # This checkout, and not what the current directory holds (-P).
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.execve(sys.executable, command, os.environ | {"PYTHONPATH": os.pathsep.join(paths)})  # noqa: S606  likewise
