"""What Alembic runs for every command, on the connection that it is given."""

from alembic import context
from sqlalchemy import Connection, text

from backend.errors import UserError
from backend.migrations import LOCK_SECONDS


def _run(connection: Connection | None) -> None:
    if connection is None:
        raise UserError("Migrations run on a connection that is passed to them: use `nox -s db_init`.")
    # A limit that the caller has set stays.
    limit = "SELECT set_config('lock_timeout', :limit, true) WHERE current_setting('lock_timeout') = '0'"
    connection.execute(text(limit), {"limit": f"{LOCK_SECONDS}s"})
    context.configure(connection=connection)
    context.get_context().autocommit_block = _refuse_to_commit  # type: ignore[assignment,method-assign]  # see there
    with context.begin_transaction():
        context.run_migrations()


def _refuse_to_commit() -> None:
    # Alembic's own stops at an assertion, because the transaction is not Alembic's to commit.
    raise UserError(
        "All migrations of a start are one transaction, so none of them may leave it (autocommit_block).\n"
        "Run what cannot be in one, such as CREATE INDEX CONCURRENTLY, by hand before the release: docs/migrations.md."
    )


_run(context.config.attributes.get("connection"))
