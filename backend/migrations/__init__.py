"""The only way a schema comes to be.

Every function works on the connection that it is handed, so migrations are pinned to UTC like every other
session and run in the caller's transaction. Alembic is imported inside the functions that need it: it costs
0.2 s, which each reload of the application would pay though its schema is at head nearly always.
"""

import re
from argparse import Namespace
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from backend.models.models import Base

if TYPE_CHECKING:
    from alembic.config import Config

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


def upgrade(connection: Connection, target: str = "head") -> None:
    """Bring the schema up to a revision, in the caller's transaction."""
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    command.upgrade(_config(connection), target)


def downgrade(connection: Connection, target: str) -> None:
    """Take the schema down to a revision (`base` is before the first), in the caller's transaction."""
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    command.downgrade(_config(connection), target)


def compare(connection: Connection) -> list[Any]:
    """Return what autogenerate would change to make the schema that of the models: nothing, if all is well.

    Alembic does not look at CHECK constraints, storage parameters and triggers; the tests do.
    """
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - see the module's docstring
    from alembic.migration import MigrationContext  # noqa: PLC0415 - see the module's docstring

    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    differences: list[Any] = compare_metadata(context, Base.metadata)
    return differences


def revise(connection: Connection, message: str, *, autogenerate: bool = True) -> list[Path]:
    """Write a new revision that takes this schema, which is at head, to the models; return the files written.

    It is a draft for a person to finish: see `compare` for what Alembic does not look at.
    """
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    written = command.revision(_config(connection), message, autogenerate=autogenerate)
    _revisions.cache_clear()
    scripts = written if isinstance(written, Sequence) else [written]
    return [Path(script.path) for script in scripts if script is not None]


def _config(connection: Connection) -> "Config":
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
