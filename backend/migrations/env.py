"""What Alembic runs for every command, on the connection that it is handed; it makes none of its own."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from backend.models.models import Base
from backend.models.types import TextEnum
from backend.utc import UtcDateTime


def _render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    # A migration is history: it must mean the same when the project's own types have changed or gone.
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, TextEnum):
        return "sa.Text()"
    return False


def _run(connection: Connection | None) -> None:
    if connection is None:
        raise SystemExit("Migrations run on a connection that is handed to them: use `nox -s db_init`.")
    options: dict[str, Any] = {"compare_server_default": True, "render_item": _render_item}
    context.configure(connection=connection, target_metadata=Base.metadata, **options)
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes.get("connection"))
