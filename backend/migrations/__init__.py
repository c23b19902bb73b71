"""Alembic's migrations, the only way to create the schema.

They run on the caller's connection, so they are pinned to UTC like every other session, and in its transaction.
"""

import traceback
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from backend.errors import UserError

LOCK_SECONDS = 5
LOCK_NAME = "procore_integrator schema"
"""The name of the advisory lock that is held while the schema is changed; hashtext() makes its key."""
_PLACE = Path(__file__).parent


@cache
def scripts() -> ScriptDirectory:
    """Return the migrations, which are read once. Raises UserError if they do not fit together."""
    # Alembic only warns about a revision that is missing, or that two files have.
    with _plain_errors("be read"), warnings.catch_warnings(action="error", category=UserWarning):
        found = ScriptDirectory.from_config(alembic_config())
        found.get_heads()
    return found


def head() -> str:
    """Return the newest revision. Raises UserError if there is none, or if there are two."""
    found = sorted(scripts().get_heads())
    if not found:
        raise UserError(f"{_PLACE / 'versions'} has no migrations.")
    if len(found) > 1:
        raise UserError(
            f"The migrations end in {len(found)} revisions, {' and '.join(found)}: "
            'join them with `nox -s db_revision -- --merge -m "merge"`.'
        )
    return found[0]


def current(connection: Connection) -> str | None:
    """Return the revision of the database, None if no migration has run; "a, b" if it is at two."""
    heads = MigrationContext.configure(connection).get_current_heads()
    return ", ".join(sorted(heads)) or None


def is_known(revision: str) -> bool:
    """Whether the code knows a revision as `current` returns it."""
    known = {script.revision for script in scripts().walk_revisions()}
    return known.issuperset(revision.split(", "))


def upgrade(connection: Connection, target: str = "head") -> None:
    """Upgrade the schema to a revision, in the caller's transaction. Raises UserError if the migrations cannot run.

    If a lock on a table is not granted within `LOCK_SECONDS`, or the transaction's own lock_timeout, PostgreSQL raises
    an OperationalError with SQLSTATE 55P03: everybody else queues behind a migration that waits for a lock.
    """
    with _plain_errors("run"):
        command.upgrade(alembic_config(connection), target)


def downgrade(connection: Connection, target: str) -> None:
    """Downgrade the schema to a revision (`base` is before the first), in the caller's transaction."""
    with _plain_errors("run"):
        command.downgrade(alembic_config(connection), target)


@contextmanager
def _plain_errors(verb: str) -> Iterator[None]:
    """Turn errors of Python into a UserError; to those of the database, add the line of the migration as a note."""
    try:
        yield
    except UserError:
        raise
    except DBAPIError as error:
        if place := _place_in_migration(error):
            error.add_note(place)
        raise
    except Exception as error:  # a migration's file is code, which may raise anything
        first_line = str(error).partition("\n")[0]
        message = f"The migrations cannot {verb}: {type(error).__name__}: {first_line}."
        raise UserError(f"{message} {_place_in_migration(error)}".rstrip()) from error


def _place_in_migration(error: Exception) -> str:
    """Return a sentence with the migration's file and line where an error was raised; empty if it was elsewhere."""
    versions = (_PLACE / "versions").resolve()
    frames = [(Path(each.filename), each.lineno) for each in traceback.extract_tb(error.__traceback__)]
    found = [(path.name, line) for path, line in frames if path.parent.resolve() == versions]
    return f"It was raised in {found[-1][0]}, line {found[-1][1]}." if found else ""


def alembic_config(connection: Connection | None = None) -> Config:
    """Return the configuration for Alembic's commands, which run on the connection."""
    # Without a file, Alembic leaves logging alone.
    config = Config(attributes={"connection": connection}, cmd_opts=Namespace(quiet=True))
    for name, value in {
        "script_location": str(_PLACE),
        # The path may contain a space or a colon.
        "path_separator": "newline",
        "file_template": "%(year)d_%(month).2d_%(day).2d_%(slug)s",
        "timezone": "UTC",
    }.items():
        config.set_main_option(name, value.replace("%", "%%"))
    return config
