"""The script that Alembic runs for every command, on the connection that the caller passes."""

from alembic import context
from sqlalchemy import Connection, text

from backend.errors import UserError
from backend.migrations import LOCK_SECONDS


def _run(connection: Connection | None) -> None:
    if connection is None:
        raise UserError("Migrations need a connection from their caller: use `nox -s db_init`.")
    # Keep a limit that the caller has set.
    limit = "SELECT set_config('lock_timeout', :limit, true) WHERE current_setting('lock_timeout') = '0'"
    connection.execute(text(limit), {"limit": f"{LOCK_SECONDS}s"})
    context.configure(connection=connection)
    context.get_context().autocommit_block = _refuse_to_commit  # type: ignore[assignment,method-assign]  # see there
    with context.begin_transaction():
        context.run_migrations()


def _refuse_to_commit() -> None:
    # Alembic's own autocommit_block would fail with an assertion, because the transaction belongs to the caller.
    raise UserError(
        "All migrations of a start run in one transaction, so autocommit_block() is not supported.\n"
        "Run CREATE INDEX CONCURRENTLY and the like by hand before the release: docs/migrations.md."
    )


_run(context.config.attributes.get("connection"))
