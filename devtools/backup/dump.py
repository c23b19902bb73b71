"""Write a consistent snapshot of a database into one file for pg_restore.

The database can be in use, and nothing in it is changed.
"""

import argparse
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import quote

from rich.filesize import decimal

from backend import migrations
from backend.config import ROOT, load_settings
from backend.errors import UserError
from backend.scripts.console import engine_for, say
from backend.startup import describe, wait_for_database
from devtools.backup.client_programs import find_tools

DIRECTORY = ROOT / "backups"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="nox -s db_backup --", description=__doc__)
    default = "the file to write (default: in backups/, named by database, revision and UTC time)"
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help=default)
    options = parser.parse_args(arguments)
    settings = load_settings()
    with engine_for(settings.database_url) as engine:
        wait_for_database(engine, settings.database_wait_seconds, report=say)
        with engine.connect() as connection:
            tools = find_tools(connection, settings)
            revision = migrations.current(connection)
    at = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    word = quote(revision or "no_revision", safe="").replace("-", "_")
    name = f"{prefix(settings.database_url.database)}{word}-{at}.dump"
    path = (options.file or DIRECTORY / name).absolute()
    with writing(path) as file:
        tools.run("pg_dump", settings.database_url, "--format=custom", stdin=subprocess.DEVNULL, stdout=file)
    size = decimal(path.stat().st_size)
    say(
        f"Backed up {describe(settings.database_url)}, at revision {revision or 'none'}, to {shown(path)} ({size})."
    )


def newest(database: str | None) -> Path:
    """Return the newest backup of a database in the default directory, by the time in its name. Raises UserError."""
    name = re.compile(rf"{re.escape(prefix(database))}[^-]+-(\d{{8}}T\d{{6}}Z)\.dump")
    found = [(match[1], path) for path in DIRECTORY.glob("*.dump") if (match := name.fullmatch(path.name))]
    if not found:
        raise UserError(
            f"{shown(DIRECTORY)} has no backup of {database}.\n"
            "Make one (`nox -s db_backup`), or name the file to restore (`nox -s db_restore -- FILE`)."
        )
    return max(found)[1]


def prefix(database: str | None) -> str:
    """Return the beginning of the names of a database's backups; no two databases have the same."""
    return f"{quote(str(database), safe='')}-"


def shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that only its owner may read; it gets its name when the block succeeds. Raises UserError."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # A killed backup leaves a partial file.
        for each, cure in ((path, ""), (partial, ", or delete it if no backup is running")):
            if os.path.lexists(each):
                raise UserError(f"{shown(each)} exists already; choose another name{cure}.")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            try:
                yield file
                os.fsync(file.fileno())
                partial.rename(path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        where = shown(Path(error.filename or path))
        raise UserError(f"{where} cannot be written: {error.strerror}.") from error
