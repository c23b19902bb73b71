"""The embedded server's data in `.dev/postgres-N`: the new ones are made in a directory next to the old."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import make_url

from backend.errors import UserError
from devtools import database
from freshpg import Server, find_binaries_of, find_clients, running, start_persistent

from .console import progress
from .tools import ToolError
from .upgrade_place import DUMP, MARK, RESTORE, Place


def find() -> Place | None:
    """Look at the directories; None if there are none of an older version."""
    target = database.DIRECTORY
    major = int(target.name.rpartition("-")[2])
    versions = {path: re.fullmatch(r"postgres-(\d+)", path.name) for path in target.parent.glob("postgres-*")}
    old = {int(name[1]): path for path, name in versions.items() if name and int(name[1]) < major}
    if not old:
        return None
    new = os.path.relpath(target)
    return Place(
        name=new,
        major=major,
        old=sorted(old),
        has_new=target.exists(),
        is_upgraded=(target / MARK).exists(),
        move_away=f"mv {new} {new}-away",
        make=lambda major: make(target, major, old[major]),
        drop=lambda major: drop(old[major]),
    )


def make(target: Path, major: int, source: Path) -> None:
    binaries = find_binaries_of(major)
    if binaries is None:
        raise UserError(
            f"{os.path.relpath(source)} needs the programs of PostgreSQL {major}, which are not on this machine. "
            f"Nothing was changed.\nInstall your system's PostgreSQL {major}, or have it on PATH."
        )
    refuse_running(source)
    making = target.with_name(f"{target.name}.making")
    remove(making)
    try:
        with TemporaryDirectory(dir=target.parent, prefix="dumps-") as dumps:
            with start_persistent(source, binaries) as server, progress("Dumping"):
                run(DUMP, server, dumps)
            with start_persistent(making) as server, progress("Restoring"):
                run(RESTORE, server, dumps)
        (making / MARK).write_text(f"{major}\n", encoding="utf-8")
        os.sync()
        making.rename(target)
    except BaseException:
        remove(making)
        raise


def run(script: str, server: Server, dumps: str) -> None:
    """Run a script with the programs of this machine. Raises ToolError."""
    programs = find_clients(int(server.version.partition(".")[0]))
    url = make_url(server.url)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    variables |= {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        "PGHOST": str(url.host), "PGPORT": str(url.port), "PGUSER": str(url.username), "PGPASSWORD": str(url.password),
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", script, "sh", dumps], env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ToolError(f"{done.stderr.strip()}\nNothing was changed.")


def drop(directory: Path) -> None:
    refuse_running(directory)
    remove(directory)


def refuse_running(directory: Path) -> None:
    if running(directory) is not None:
        raise UserError(f"{os.path.relpath(directory)} is in use: end the command that runs it.")


def remove(directory: Path) -> None:
    """Remove a directory, and its data if they had to be elsewhere."""
    data = (directory / "data").resolve()
    if data.exists() and not data.is_relative_to(directory.resolve()):
        shutil.rmtree(data)
    shutil.rmtree(directory, ignore_errors=not directory.exists())
