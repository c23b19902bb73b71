"""A mark in the database that says which environment it belongs to, so that a wrong setting cannot cause damage.

The mark is the comment on Alembic's table: the role that runs the migrations may write it, and a dump includes it. It
is written when the schema is created in an empty database, and at each start in production.
"""

import re

from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from backend.migrations.catalog import VERSION_TABLE

_MARK = re.compile(r"procore-integrator, (development|test|production)\b")
# The table belongs to another role, or the server is a standby.
_MAY_NOT_WRITE = (InsufficientPrivilege, ReadOnlySqlTransaction)


def read(connection: Connection) -> str | None:
    """Return the environment from the mark, None if the database has no mark."""
    query = text("SELECT obj_description(to_regclass(:table), 'pg_class')")
    comment = connection.scalar(query, {"table": VERSION_TABLE})
    found = _MARK.match(comment or "")
    return found[1] if found else None


def write(connection: Connection, environment: str) -> None:
    """Mark a database that has a schema as `development`, `test` or `production`, if the role may do so.

    It runs in the caller's transaction, which continues if the role may not.
    """
    verb = "never drops" if environment == "production" else "may drop"
    comment = f"procore-integrator, {environment}: db_reset {verb} what is in this database"
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"COMMENT ON TABLE {VERSION_TABLE} IS '{comment}'")
    except DBAPIError as error:
        if not isinstance(error.orig, _MAY_NOT_WRITE):
            raise
