"""Fill a new database from a backup and swap it in under the same name, while the API is connected.

The old one is kept under another name. The new one has the old one's owner, locale and settings. Runs without
confirmation only on a local or Compose database that is marked as development or test, and never on production.
"""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from backend import migrations
from backend.config import Settings, load_settings
from backend.database import connect
from backend.errors import UserError
from backend.scripts.console import engine_for, say
from backend.scripts.safety import DestructiveAction, refuse_production, refuse_unless_ours
from backend.startup import describe, wait_for_database
from devtools.backup import swap
from devtools.backup.client_programs import Tools, find_tools, progress
from devtools.backup.dump import newest, shown

UNCHANGED = "Nothing was changed."


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="nox -s db_restore --", description=__doc__, allow_abbrev=False)
    either = parser.add_mutually_exclusive_group()
    file = "a file of db_backup or `pg_dump --format=custom` (default: the newest one in backups/)"
    either.add_argument("file", nargs="?", type=Path, metavar="FILE", help=file)
    old = "restore nothing; drop the databases that earlier restores kept"
    either.add_argument("--drop-old", action="store_true", help=old)
    owner = "leave out owners and grants: your role owns everything"
    parser.add_argument("--no-owner", action="store_true", help=owner)
    parser.add_argument("--yes-drop", metavar="NAME", help="the database's name, to replace it in any case")
    options = parser.parse_args(arguments)
    settings = load_settings()
    refuse_production(settings, f"a production database is never replaced by a backup. {UNCHANGED}")
    verb, what = "replace", "the database"
    if options.drop_old:
        verb, what = "drop", "the databases that earlier restores kept"
    with engine_for(settings.database_url) as engine:
        wait_for_database(engine, settings.database_wait_seconds, report=say)
        action = DestructiveAction(verb, "db_restore", "--yes-drop", arguments, what)
        refuse_unless_ours(engine, action, typed_name=options.yes_drop)
        drop_old(settings.database_url) if options.drop_old else restore(options, settings)


def restore(options: argparse.Namespace, settings: Settings) -> None:
    url, name = settings.database_url, str(settings.database_url.database)
    path = options.file or newest(name)
    with opened(path) as file, swap.restore_lock(url) as connection:
        tools = find_tools(connection, settings)
        new = swap.create(connection, name)
        try:
            revision = fill(tools, url.set(database=new), file, no_owner=options.no_owner)
            swap.copy_settings(connection, url, new)
            old = swap.replace(connection, name, new)
        except BaseException:
            with suppress(DBAPIError):
                swap.drop(connection, new)
            raise
    say(f"Restored {describe(url)} from {shown(path.absolute())}.")
    say(f'The old database is kept as "{old}". `nox -s db_restore -- --drop-old` drops it.')
    if revision != migrations.head():
        say(
            f"It is at revision {revision or 'none'} and the code at {migrations.head()}: run `nox -s db_init`."
        )


def opened(path: Path) -> IO[bytes]:
    """Open a dump. Raises UserError."""
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read: {error.strerror}. {UNCHANGED}") from error


def fill(tools: Tools, url: URL, file: IO[bytes], *, no_owner: bool) -> str | None:
    """Restore into an empty database and return the schema's revision. Raises UserError."""
    options = ["--exit-on-error", *(["--no-owner", "--no-privileges"] if no_owner else [])]
    try:
        tools.run("pg_restore", url, *options, stdin=file)
    except UserError as error:
        raise UserError(
            f"The backup was not restored. {UNCHANGED} docs/backup.md lists known causes."
        ) from error
    engine = connect(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with progress("Gathering statistics"), engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        revision = migrations.current(connection)
    if revision is not None and not migrations.is_known(revision):
        raise UserError(
            f"The backup is at revision {revision}, which this code does not know. {UNCHANGED}\n"
            "Check out the code that made the backup, and restore it there."
        )
    return revision


def drop_old(url: URL) -> None:
    with swap.restore_lock(url) as connection:
        names = swap.kept(connection, str(url.database))
        for name in names:
            swap.drop(connection, name)
            say(f'Dropped "{name}".')
    if not names:
        say(f"Nothing to drop: there is no old database of {url.database}.")
