"""The only way a schema comes to be.

Every function works on the connection that it is handed, so migrations are pinned to UTC like every other
session and run in the caller's transaction. Alembic is imported inside the functions that need it: it costs
0.2 s, which each reload of the application would pay though its schema is at head nearly always.
"""

import re
from argparse import Namespace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from alembic.config import Config

LOCK_SECONDS = 5
LOCK_NAME = "procore_integrator schema"
"""What an advisory lock's key is made of, by hashtext(), that whoever changes the schema holds."""
_PLACE = Path(__file__).parent
# The two lines that Alembic's template writes at the top of every revision.
_IDENTIFIERS = re.compile(r'^revision = "(\w+)"\ndown_revision = (?:None|"(\w+)")$', re.MULTILINE)


@cache
def _revisions() -> dict[str, str | None]:
    """Return each revision that the code knows with the one below it, read from the files' own lines."""
    revisions: dict[str, str | None] = {}
    for path in sorted((_PLACE / "versions").glob("[!_]*.py")):
        found = _IDENTIFIERS.search(path.read_text(encoding="utf-8"))
        if found is None:
            raise RuntimeError(
                f"{path.name} does not say its revision and down_revision as the template does"
            )
        revisions[found[1]] = found[2]
    return revisions


def known() -> frozenset[str]:
    """Return every revision that the code knows."""
    return frozenset(_revisions())


def head() -> str:
    """Return the newest revision; RuntimeError where two stand on one, and so neither is the newest."""
    heads = sorted(known().difference(_revisions().values()))
    if len(heads) != 1:
        raise RuntimeError(
            f"the migrations must end in one revision, and end in {heads}: put one on the other"
        )
    return heads[0]


def current(connection: Connection) -> str | None:
    """Return the revision that the database is at, None where no migration has run."""
    # Not to_regclass(): it looks into a cache that is not refreshed between two statements of a transaction, and would
    # not see the table that another process made while this one waited for its turn.
    is_there = text(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'alembic_version' AND pg_table_is_visible(oid))"
    )
    if not connection.scalar(is_there):
        return None
    found = connection.scalars(text("SELECT version_num FROM alembic_version ORDER BY 1")).all()
    # Of several, which is a mistake of somebody's, none is known, and so what is said is what is there.
    return ", ".join(found) or None


def forget() -> None:
    """Read the files anew when next asked, for one was written."""
    _revisions.cache_clear()


def behind(revision: str | None) -> int | None:
    """Return how many migrations lie between a revision (None: an empty database) and the head; None if not known."""
    count, at = 0, head()
    while at != revision:
        below = _revisions()[at]
        count += 1
        if below is None:
            return count if revision is None else None
        at = below
    return count


def upgrade(connection: Connection, target: str = "head") -> None:
    """Bring the schema up to a revision, in the caller's transaction.

    A table's lock that is not had within `LOCK_SECONDS`, or the transaction's own lock_timeout, is an OperationalError
    with SQLSTATE 55P03: who waits for a lock on a table keeps everybody else waiting behind.
    """
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    command.upgrade(alembic_config(connection), target)


def downgrade(connection: Connection, target: str) -> None:
    """Take the schema down to a revision (`base` is before the first), in the caller's transaction."""
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    command.downgrade(alembic_config(connection), target)


def alembic_config(connection: Connection | None = None) -> "Config":
    """Return what Alembic is to know of the place; with a connection, its commands run on that."""
    from alembic.config import Config  # noqa: PLC0415 - see the module's docstring

    # Without a file, Alembic leaves logging alone.
    config = Config(attributes={"connection": connection}, cmd_opts=Namespace(quiet=True))
    for name, value in {
        "script_location": str(_PLACE),
        # The place's own name may hold a space or a colon.
        "path_separator": "newline",
        "file_template": "%(year)d_%(month).2d_%(day).2d_%(slug)s",
        "timezone": "UTC",
    }.items():
        config.set_main_option(name, value.replace("%", "%%"))
    return config
