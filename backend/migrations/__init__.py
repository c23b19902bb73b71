"""Alembic's migrations, the only way to create the schema.

Every function works on the caller's connection, so migrations are pinned to UTC like every other session and
run in the caller's transaction. Alembic is imported inside the functions that need it: the import takes 0.2 s,
and each reload of the application would pay it although the schema is nearly always at head.
"""

import ast
from argparse import Namespace
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from backend.errors import UserError

if TYPE_CHECKING:
    from alembic.config import Config

LOCK_SECONDS = 5
LOCK_NAME = "procore_integrator schema"
"""The name of the advisory lock that is held while the schema is changed; hashtext() makes its key."""
_PLACE = Path(__file__).parent
MERGE = 'join them with `nox -s db_revision -- --merge -m "merge"`'


@cache
def _revisions() -> dict[str, tuple[str, ...]]:
    """Return each revision with its down revisions, read from the files without running them."""
    revisions: dict[str, tuple[str, ...]] = {}
    for path in sorted((_PLACE / "versions").glob("[!_]*.py")):
        revision, below = _identifiers(path)
        if revision in revisions:
            raise UserError(
                f"Two files in {path.parent} are revision {revision}; {path.name} is one of them."
            )
        revisions[revision] = below
    for revision, below in revisions.items():
        if missing := [each for each in below if each not in revisions]:
            raise UserError(
                f"Revision {revision} follows {missing[0]}, but {_PLACE / 'versions'} has no file for that: "
                "restore the file, or correct down_revision."
            )
    return revisions


def _identifiers(path: Path) -> tuple[str, tuple[str, ...]]:
    found: dict[str, object] = {}
    try:
        for node in ast.parse(path.read_bytes()).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision"):
                found[target.id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]  # both kinds have it
        revision, below = found["revision"], found["down_revision"]
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from error
    except KeyError as error:
        raise UserError(f"{path} does not define {error.args[0]}: restore the file.") from error
    if isinstance(below, tuple | list):
        return str(revision), tuple(map(str, below))
    return str(revision), () if below is None else (str(below),)


def known() -> frozenset[str]:
    """Return every revision that the code knows. Raises UserError if the files do not fit together."""
    return frozenset(_revisions())


def heads() -> list[str]:
    """Return the revisions that no other follows: one, unless there are two branches."""
    return sorted(known().difference(*_revisions().values()))


def head() -> str:
    """Return the newest revision. Raises UserError if there is none, or if there are two."""
    found = heads()
    if len(found) != 1:
        raise UserError(
            f"The migrations end in {len(found)} revisions, {' and '.join(found)}: {MERGE}."
            if found
            else f"{_PLACE / 'versions'} has no migrations, or they follow each other in a circle."
        )
    return found[0]


def current(connection: Connection) -> str | None:
    """Return the revision of the database, None if no migration has run; "a, b" if it is at two."""
    # Not to_regclass(): it uses a cache that is not refreshed between two statements of a transaction, so it would
    # not see the table that another process created while this one waited for the lock.
    is_there = text(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'alembic_version' AND pg_table_is_visible(oid))"
    )
    if not connection.scalar(is_there):
        return None
    found = connection.scalars(text("SELECT version_num FROM alembic_version ORDER BY 1")).all()
    return ", ".join(found) or None


def is_known(revision: str) -> bool:
    """Whether the code knows a revision as `current` returns it."""
    return known().issuperset(revision.split(", "))


def forget() -> None:
    """Forget the cached revisions, because a file was written; the next call reads the files again."""
    _revisions.cache_clear()


def behind(revision: str | None) -> int | None:
    """Return how many migrations a revision (None: an empty database) is behind the head; None if it is not known."""
    if revision is not None and not is_known(revision):
        return None
    done = {each for at in revision.split(", ") for each in _with_ancestors(at)} if revision else set()
    return len(set(_with_ancestors(head())) - done)


def in_order() -> dict[str, tuple[str, ...]]:
    """Return every revision with its down revisions, in an order in which they can run."""
    ordered: dict[str, tuple[str, ...]] = {}
    waiting = dict(_revisions())
    while waiting:
        ready = [each for each, below in waiting.items() if ordered.keys() >= set(below)]
        if not ready:
            raise UserError(f"The migrations follow each other in a circle: {', '.join(sorted(waiting))}.")
        ordered |= {each: waiting.pop(each) for each in ready}
    return ordered


def _with_ancestors(revision: str) -> Iterator[str]:
    waiting, seen = [revision], set[str]()
    while waiting:
        if (each := waiting.pop()) not in seen:
            seen.add(each)
            waiting += _revisions()[each]
    yield from seen


def upgrade(connection: Connection, target: str = "head") -> None:
    """Upgrade the schema to a revision, in the caller's transaction. Raises UserError if the migrations cannot run.

    If a lock on a table is not granted within `LOCK_SECONDS`, or the transaction's own lock_timeout, PostgreSQL raises
    an OperationalError with SQLSTATE 55P03: everybody else queues behind a migration that waits for a lock.
    """
    _run("upgrade", connection, target)


def downgrade(connection: Connection, target: str) -> None:
    """Downgrade the schema to a revision (`base` is before the first), in the caller's transaction."""
    _run("downgrade", connection, target)


def _run(verb: str, connection: Connection, target: str) -> None:
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    try:
        getattr(command, verb)(alembic_config(connection), target)
    except (UserError, DBAPIError):
        raise
    except Exception as error:  # an edited file may raise anything
        first_line = str(error).partition("\n")[0]
        raise UserError(f"The migrations cannot run: {type(error).__name__}: {first_line}.") from error


def alembic_config(connection: Connection | None = None) -> "Config":
    """Return the configuration for Alembic's commands, which run on the connection."""
    from alembic.config import Config  # noqa: PLC0415 - see the module's docstring

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
