"""Put a backup in the place of the database that the settings name: `nox -s db_restore`, which also finds that."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from rich.filesize import decimal
from sqlalchemy import URL

from backend import migrations
from backend.config import Settings, load_settings
from backend.errors import UserError
from backend.scripts.safety import DestructiveAction, refuse_production, refuse_unless_ours
from backend.scripts.terminal import engine_for, say
from backend.startup import describe, wait_for_database

from . import beside
from .archive import Backup, newest, reading, shown, stamp
from .filling import UNCHANGED, fill, refuse_misfit, summary
from .make import check, direct
from .talk import enter, progress
from .tools import find_tools

REPLACE = DestructiveAction("Nothing was replaced", "replace", "nox -s db_restore -- --yes-drop")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    settings = load_settings()
    refuse_production(settings, f"a production database is never replaced by a backup. {UNCHANGED}")
    name = str(settings.url.database)
    with engine_for(settings) as engine:
        try:
            wait_for_database(engine, settings.database_wait_seconds, tell=say)
        except UserError:
            # One that was dropped by mistake is what backups are for.
            if options.drop_kept or not is_missing(settings.url, name):
                raise
            is_there = False
        else:
            is_there = True
        if options.drop_kept:
            refuse_unless_ours(engine, settings, REPLACE, typed_name=options.yes_drop)
            drop_kept(settings.url, name)
            return
        with opened((options.file or newest(name)).absolute()) as backup:
            if options.file is None:
                refuse_other_database(backup, name)
            refuse_unknown_revision(backup)
            if is_there:
                refuse_unless_ours(engine, settings, REPLACE, typed_name=options.yes_drop)
            engine.dispose()
            replace(backup, settings, drop_old=options.drop_old, owner=not options.no_owner)


def is_missing(url: URL, name: str) -> bool:
    """Whether the server is there, and on it no database of this name."""
    try:
        with direct(url, beside.administrative(name)) as connection:
            return not beside.exists(connection, name)
    except psycopg.OperationalError:
        return False


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="db_restore",
        description="Fill a new database from a backup, verify that it holds what was backed up, and have it take the "
        "place of the database, at once and while the API is connected. The old one is kept under another name. "
        "Like db_reset it replaces what is on this machine or Compose's, and by its mark development's or test's; "
        "elsewhere the name must be typed. Production is never replaced.",
    )
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="what db_backup wrote (by default the newest of this database in backups/)",
    )
    parser.add_argument("--yes-drop", metavar="NAME", help="the database's name, to replace it all the same")
    parser.add_argument(
        "--drop-old", action="store_true", help="drop the old database once the new is in its place"
    )
    parser.add_argument(
        "--drop-kept", action="store_true", help="drop the old databases that were kept, and do no more"
    )
    parser.add_argument(
        "--no-owner", action="store_true", help="make all of it this role's, and leave out what others may do"
    )
    return parser.parse_args(arguments)


@contextmanager
def opened(path: Path) -> Iterator[Backup]:
    """Lend a backup that was read to its end, and found whole."""
    with ExitStack() as stack:
        with progress(f"Reading {path.name}") as tell:
            backup = stack.enter_context(reading(path, lambda read: tell(decimal(read))))
        yield backup


def refuse_other_database(backup: Backup, name: str) -> None:
    """Raise UserError where the file's name is this database's and its content another's: `a-b` and `a_b`."""
    other = backup.manifest.database
    if other != name:
        raise UserError(
            f"{shown(backup.path)} is newest by its name, and of the database {other}, not of {name}. {UNCHANGED}\n"
            "Say which file to restore: `nox -s db_restore -- FILE`."
        )


def refuse_unknown_revision(backup: Backup) -> None:
    revision = backup.manifest.revision
    if revision is not None and revision not in migrations.known():
        raise UserError(
            f"{shown(backup.path)} is at revision {revision}, which this code does not know. {UNCHANGED}\n"
            "Check out the code that made it, and restore it there."
        )


def replace(backup: Backup, settings: Settings, *, drop_old: bool, owner: bool) -> None:
    """Have what is in the backup take the place of the database that the settings name, and say so."""
    url, name = settings.url, str(settings.url.database)
    with direct(url, beside.administrative(name)) as connection, beside.alone(connection, name):
        refuse_misfit(connection, backup, owner=owner)
        major = connection.info.server_version // 10000
        tools = find_tools(url, major, compose_port=settings.db_port)
        check(backup, tools)
        beside.refuse_if_used_by_others(connection, name)
        beside.drop_unfinished(connection, name)
        new, was_there = beside.new_name(name), beside.exists(connection, name)
        old = beside.free_name(connection, name, f"_before_{stamp(datetime.now(UTC))}")
        try:
            fill(connection, backup, url, new, tools, mark_for=name, owner=owner)
            began = time.perf_counter()
            with direct(url, beside.administrative(name)) as other:
                comment = backup.manifest.properties.comment
                if was_there:
                    ended = beside.swap(connection, other, name=name, new=new, old=old, comment=comment)
                else:
                    beside.rename(connection, new, name, comment)
                    ended = 0
            milliseconds = (time.perf_counter() - began) * 1000
        except KeyboardInterrupt:
            is_done = beside.exists(connection, old if was_there else name)
            say("Interrupted. " + ("The backup is in its place." if is_done else UNCHANGED))
            raise
        finally:
            # It has another name by then if all went well.
            if not connection.closed:
                beside.drop(connection, new)
        say(
            f"Restored {describe(url)} from {shown(backup.path)}, of {backup.manifest.made_at:%Y-%m-%d %H:%M:%S} UTC: "
            f"{summary(backup.manifest)}. The change took {milliseconds:.0f} ms and ended {ended} connections."
        )
        if not was_there:
            say("There was no such database before.")
        elif drop_old:
            beside.drop(connection, old)
            say("The database that was there before is dropped.")
        else:
            say(
                f'What was there before is kept as "{old}". `nox -s db_restore -- --drop-kept` drops what was kept.'
            )
    if backup.manifest.revision != migrations.head():
        say(
            f"Its schema is at {backup.manifest.revision} and not at {migrations.head()}: run `nox -s db_init`."
        )


def drop_kept(url: URL, name: str) -> None:
    with direct(url, beside.administrative(name)) as connection, beside.alone(connection, name):
        found = beside.kept(connection, name)
        for old in found:
            beside.drop(connection, old)
            say(f'Dropped "{old}".')
        if not found:
            say(f"Nothing was kept of {name} on this server.")


if __name__ == "__main__":
    enter(main)
