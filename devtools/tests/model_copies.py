"""Copy the models, so that a test can change them, and run drafted migrations like files."""

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, MetaData
from sqlalchemy.dialects import postgresql

from backend.models.models import Base
from backend.utc import KEEP_TIMESTAMPS_FUNCTION, keep_timestamps_trigger


def copied_models() -> MetaData:
    """Copy the models' tables, and have `create_all` create the trigger on each table with timestamps."""
    copy = MetaData(naming_convention=Base.metadata.naming_convention)
    for table in Base.metadata.sorted_tables:
        table.to_metadata(copy)

    def keep_timestamps(_metadata: MetaData, connection: Connection, **_: object) -> None:
        connection.execute(sa.text(copy.info.get("function", KEEP_TIMESTAMPS_FUNCTION)))
        for table in list(copy.tables.values()):
            if "updated_at" in table.c and table.name not in copy.info.get("unkept", ()):
                connection.execute(sa.text(keep_timestamps_trigger(table.name)))

    sa.event.listen(copy, "after_create", keep_timestamps)
    return copy


def take(connection: Connection, body: str) -> None:
    """Run the body of a migration like the file."""
    names = {
        "op": Operations(MigrationContext.configure(connection)),
        "sa": sa,
        "postgresql": postgresql,
    }
    exec(body, names)  # noqa: S102  what was drafted
