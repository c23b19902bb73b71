"""A new database, filled from a backup, and believed when it holds what was backed up."""

import psycopg
from sqlalchemy import URL

from backend.errors import UserError
from backend.scripts.terminal import say

from . import beside
from .archive import Backup, Manifest, shown
from .figures import differences, pin, read_figures
from .make import direct
from .properties import alterations, creation, read_properties
from .talk import counted, first_line, progress
from .tools import ToolError, Tools

UNCHANGED = "Nothing was changed."


def refuse_misfit(connection: psycopg.Connection, backup: Backup, *, owner: bool) -> None:
    """Raise UserError where this server lacks what the backup needs."""
    manifest = backup.manifest
    major = connection.info.server_version // 10000
    if manifest.major > major:
        raise UserError(
            f"{shown(backup.path)} was made on PostgreSQL {manifest.major}, and this server is {major}, "
            f"which may not understand it. {UNCHANGED}\nRestore it on {manifest.major} or newer."
        )
    roles = connection.execute(
        "SELECT x FROM unnest(%s::text[]) AS x WHERE x NOT IN (SELECT rolname FROM pg_roles)",
        [manifest.properties.roles],
    ).fetchall()
    if roles and owner:
        raise UserError(
            f"{shown(backup.path)} speaks of roles that are not on this server: {_listed(roles)}. {UNCHANGED}\n"
            "Create them (`CREATE ROLE`), or have all of it belong to your role: `-- --no-owner`."
        )
    extensions = connection.execute(
        "SELECT x FROM unnest(%s::text[]) AS x WHERE x NOT IN (SELECT name FROM pg_available_extensions)",
        [manifest.properties.extensions],
    ).fetchall()
    if extensions:
        raise UserError(
            f"{shown(backup.path)} needs extensions that are not on this server: {_listed(extensions)}. {UNCHANGED}\n"
            "Install them there, or restore it on a server that has them."
        )


def fill(
    connection: psycopg.Connection,
    backup: Backup,
    url: URL,
    new: str,
    tools: Tools,
    *,
    mark_for: str,
    owner: bool = True,
) -> None:
    """Create a database and fill it from the backup, verified. What goes wrong leaves it unfinished, and marked so."""
    create(connection, backup.manifest, new, mark_for, owner=owner)
    options = [] if owner else ["--no-owner", "--no-privileges"]
    place = url.set(database=new)
    try:
        with progress("Restoring") as tell:
            tools.restore(counted(backup.chunks(), tell, backup.size), place, *options)
    except ToolError as error:
        raise UserError(f"{shown(backup.path)} was not restored. {UNCHANGED}\n{error}") from error
    with direct(url, new) as inside:
        with progress("Gathering statistics"):
            inside.execute("ANALYZE")
        pin(inside)
        with progress("Verifying") as tell:
            found = list(differences(backup.manifest.figures, read_figures(inside, tell)))
        if found:
            raise UserError(
                f"What was restored is not what was backed up, and is dropped: {'; '.join(found[:4])}. {UNCHANGED}"
            )
        for statement in alterations(backup.manifest.properties, new, owner=owner):
            inside.execute(statement)
        if owner:
            verify_properties(backup.manifest, inside)


def create(connection: psycopg.Connection, manifest: Manifest, new: str, name: str, *, owner: bool) -> None:
    """Create the database with its own locale, or with the server's where that is not there."""
    properties = manifest.properties
    try:
        beside.create(connection, creation(properties, new, locale=True, owner=owner), new, name)
    except psycopg.errors.InsufficientPrivilege as error:
        raise UserError(
            f"A backup is restored into a database of its own, which this role may not make: {first_line(error)}.\n"
            f"Let it (`ALTER ROLE ... CREATEDB`), or have all of it belong to this role: `-- --no-owner`. {UNCHANGED}"
        ) from error
    except (psycopg.errors.WrongObjectType, psycopg.errors.InvalidParameterValue) as error:
        say(f"The backup's locale is not to be had here, so the server's own is taken: {first_line(error)}.")
        beside.create(connection, creation(properties, new, locale=False, owner=owner), new, name)


def verify_properties(manifest: Manifest, connection: psycopg.Connection) -> None:
    """Raise UserError where what belongs to the database itself is not as it was."""
    expected, found = manifest.properties, read_properties(connection)
    for what in ("owner", "encoding", "connection_limit", "settings", "grants"):
        if getattr(expected, what) != getattr(found, what):
            raise UserError(
                f"The database's {what.replace('_', ' ')} could not be made as in the backup. {UNCHANGED}"
            )


def summary(manifest: Manifest) -> str:
    return f"{len(manifest.figures.tables)} tables, {manifest.figures.rows:,} rows, each table as it was backed up"


def _listed(rows: list[tuple[str]]) -> str:
    return ", ".join(name for (name,) in rows)
