"""What Alembic runs for every command, on the connection that it is handed; it makes none of its own."""

from alembic import context
from sqlalchemy import Connection, text

from backend.migrations import LOCK_SECONDS


def _run(connection: Connection | None) -> None:
    if connection is None:
        raise SystemExit("Migrations run on a connection that is handed to them: use `nox -s db_init`.")
    # A limit that the caller has set stays.
    limit = "SELECT set_config('lock_timeout', :limit, true) WHERE current_setting('lock_timeout') = '0'"
    connection.execute(text(limit), {"limit": f"{LOCK_SECONDS}s"})
    context.configure(connection=connection)
    context.get_context().autocommit_block = _refuse_to_commit  # type: ignore[assignment,method-assign]  # see there
    with context.begin_transaction():
        context.run_migrations()


def _refuse_to_commit() -> None:
    # Alembic's own would stop at an assertion, for the transaction is not its own to commit.
    raise SystemExit(
        "All migrations of a start are one transaction, so none of them may leave it (autocommit_block).\n"
        "What cannot run in one, as CREATE INDEX CONCURRENTLY, is run by hand before the release: see CONTRIBUTING.md."
    )


_run(context.config.attributes.get("connection"))
