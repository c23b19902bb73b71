"""Write a backup of the database that the settings name: `nox -s db_backup`, which also finds the database."""

import argparse
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from rich.filesize import decimal
from sqlalchemy import URL

from backend.config import load_settings
from backend.errors import UserError
from backend.scripts.terminal import engine_for, say
from backend.startup import describe, wait_for_database

from .archive import FORMAT, Backup, Manifest, default_path, shown, writing
from .figures import pin, read_figures
from .properties import read_properties
from .talk import counted, enter, progress
from .tools import Tools, find_tools

_APPLICATION = "procore-integrator db_backup"
# A role or a database may have deadlines for what an application does; not every version knows all of them.
_NO_DEADLINES = """
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_session_timeout',
                   'idle_in_transaction_session_timeout')
"""
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
_REVISION = r"""
    SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relname = 'alembic_version' AND c.relkind = 'r' AND n.nspname NOT LIKE 'pg\_%'
    ORDER BY n.nspname <> 'public', 1 LIMIT 1
"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    settings = load_settings()
    with engine_for(settings) as engine:
        wait_for_database(engine, settings.database_wait_seconds, tell=say)
    with direct(settings.url) as connection:
        major = connection.info.server_version // 10000
        tools = find_tools(settings.url, major, compose_port=settings.db_port)
        path, size, manifest = save(connection, settings.url, tools, options.file)
    what = f"{describe(settings.url)} at revision {manifest.revision or 'none'}"
    say(
        f"Backed up {what}: {shown(path)}, {decimal(size)}, {len(manifest.figures.tables)} tables, "
        f"{manifest.figures.rows:,} rows."
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="db_backup",
        description="Write the whole database into one file, as it is at one moment, whoever writes meanwhile. Nothing "
        " of it is changed.",
    )
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="where to (by default in backups/, named by database, revision and time)",
    )
    return parser.parse_args(arguments)


@contextmanager
def direct(url: URL, database: str | None = None) -> Iterator[psycopg.Connection]:
    """Lend a connection of psycopg's own to the database, or to another on its server, outside of any transaction."""
    words: dict[str, Any] = {"connect_timeout": 5, "application_name": _APPLICATION}
    words |= url.get_dialect()().create_connect_args(url)[1]
    if database is not None:
        words["dbname"] = database
    with psycopg.connect(**words, autocommit=True) as connection:
        # psycopg would prepare what is sent often, and a pool might mind.
        connection.prepare_threshold = None
        connection.execute(_NO_DEADLINES)
        yield connection


def save(
    connection: psycopg.Connection, url: URL, tools: Tools, file: Path | None = None
) -> tuple[Path, int, Manifest]:
    """Write a backup; return where, of what size, and what it says of itself. Raises UserError.

    The connection is to the database that the URL names, and outside of any transaction.
    """
    moment = datetime.now(UTC)
    pin(connection)
    with connection.transaction():
        # What is counted and what is dumped are of one snapshot, which lasts as long as this transaction.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        [(snapshot,)] = connection.execute("SELECT pg_export_snapshot()").fetchall()
        revision = _revision(connection)
        path = (file or default_path(connection.info.dbname, revision, moment)).absolute()
        with writing(path) as writer:
            with progress("Counting") as tell:
                manifest = Manifest(
                    format=FORMAT,
                    made_at=moment,
                    database=connection.info.dbname,
                    server_version=connection.info.parameter_status("server_version") or "",
                    revision=revision,
                    properties=read_properties(connection),
                    figures=read_figures(connection, tell),
                )
            with progress("Dumping") as tell, _ending(connection) as application:
                named = url.update_query_dict({"application_name": application})
                dump = tools.dump(named, "--format=custom", f"--snapshot={snapshot}")
                writer.write(counted(dump, tell), manifest)
            with progress("Reading it back"):
                check(writer.read_back(), tools)
            size = writer.size()
    return path, size, manifest


@contextmanager
def _ending(connection: psycopg.Connection) -> Iterator[str]:
    """Lend a name for the connection of a program that is not to outlive the block.

    In a container it hears no signal of ours, and would go on to its end, with its locks. To kill it there is
    dangerous: what loses its parent becomes the server's child, which takes its death by a signal for a crash.
    """
    application = f"{_APPLICATION} {secrets.token_hex(4)}"
    try:
        yield application
    except BaseException:
        with suppress(psycopg.Error):
            connection.execute(_END, [application])
        raise


def check(backup: Backup, tools: Tools) -> None:
    """Raise UserError unless pg_restore can read the backup's list of contents."""
    try:
        tools.check(backup.chunks())
    except UserError as error:
        raise UserError(
            f"{shown(backup.path)} cannot be read by pg_restore {tools.origin}: {error}\nNothing was changed."
        ) from error


def _revision(connection: psycopg.Connection) -> str | None:
    for place in connection.execute(_REVISION).fetchall():
        statement = sql.SQL("SELECT version_num FROM {} ORDER BY 1").format(sql.Identifier(*place))
        found = connection.execute(statement).fetchall()
        return ", ".join(revision for (revision,) in found) or None
    return None


if __name__ == "__main__":
    enter(main)
