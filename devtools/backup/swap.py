"""Create a new database next to an existing one, swap their names, and find and drop the old ones.

Every function needs the connection that `restore_lock` yields.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime

from psycopg import errors, sql
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from backend.database import connect
from backend.errors import UserError

LONGEST = 63
"""PostgreSQL truncates names to this many bytes."""
NEW = "_new_by_db_restore"
"""The end of the name of a database that is being filled."""
KEPT = "db_restore: kept from before a restore of "
PAUSE = 0.02
# A superuser may end any session, and a member of pg_signal_backend those of everybody but superusers; another role may
# end the sessions of the roles that it is a member of.
END_SESSIONS = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = :name AND pid <> pg_backend_pid() AND (
        pg_has_role(usesysid, 'USAGE')
        OR pg_has_role('pg_signal_backend', 'USAGE') AND NOT (SELECT rolsuper FROM pg_roles WHERE oid = usesysid)
    )
""")
# The column of the locale has one name in PostgreSQL 15 and 16, and another since 17.
CREATE = text("""
    SELECT
        format('CREATE DATABASE %I TEMPLATE template0 OWNER %I ', new, pg_get_userbyid(datdba))
        || format('ENCODING %L LC_COLLATE %L LC_CTYPE %L ', pg_encoding_to_char(encoding), datcollate, datctype)
        || CASE datlocprovider
            WHEN 'i' THEN format('LOCALE_PROVIDER icu ICU_LOCALE %L', locale)
            WHEN 'b' THEN format('LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', locale)
            ELSE 'LOCALE_PROVIDER libc'
        END,
        format('COMMENT ON DATABASE %I IS %L', new, shobj_description(oid, 'pg_database'))
    FROM pg_database AS d,
        CAST(:new AS text) AS new,
        coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale
    WHERE datname = :name
""")
# The settings from ALTER DATABASE ... SET, without the settings of a role in this database.
SETTINGS = text("""
    SELECT split_part(setting, '=', 1) FROM pg_database AS d, pg_db_role_setting AS s, unnest(setconfig) AS setting
    WHERE datname = :name AND s.setdatabase = d.oid AND s.setrole = 0
""")
# The name is checked too, because somebody may have renamed an old database back.
ARE_KEPT = text("""
    SELECT datname FROM pg_database
    WHERE shobj_description(oid, 'pg_database') = :comment AND datname ~ '_before_[0-9]{8}T[0-9]{6,12}Z$'
    ORDER BY datname
""")


@contextmanager
def restore_lock(url: URL) -> Iterator[Connection]:
    """Yield an autocommit connection to another database of the server, to one process at a time. Raises UserError."""
    other = "template1" if url.database == "postgres" else "postgres"
    engine = connect(url.set(database=other), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    lock = text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))")
    # The lock is released with the connection.
    with engine.connect() as connection:
        if not connection.scalar(lock, {"key": next_to(str(url.database), NEW)}):
            raise UserError(f"Another db_restore of {url.database} is running. Wait until it has finished.")
        yield connection


def create(connection: Connection, name: str) -> str:
    """Create an empty database next to an existing one, like that one, and return the new name.

    It gets the owner, encoding, locale and comment.
    """
    new = next_to(name, NEW)
    drop(connection, new)  # left by a restore that was killed
    for statement in connection.execute(CREATE, {"name": name, "new": new}).one():
        run(connection, statement)
    return new


def copy_settings(connection: Connection, url: URL, new: str) -> None:
    """Copy the settings from ALTER DATABASE ... SET of the URL's database to the new database."""
    names = connection.scalars(SETTINGS, {"name": url.database}).all()
    # A session in the old database has these values, unless it is pinned to UTC, and PostgreSQL quotes them correctly.
    with create_engine(url, poolclass=NullPool).begin() as inside:
        run(inside, "SET TRANSACTION READ WRITE")
        for name in names:
            run(inside, f"ALTER DATABASE {quote(new)} SET {name} FROM CURRENT")


def replace(connection: Connection, name: str, new: str) -> str:
    """Rename a database, and the new one to its name, in one transaction; return the old one's new name.

    Sessions in the old database are ended. Raises UserError if this role may not end some of them.
    """
    try:
        with connection.engine.connect() as other, ThreadPoolExecutor(1) as executor:
            # The rename keeps new sessions out, and waits until the existing ones have ended.
            renamed = executor.submit(rename, other, name, new)
            while not renamed.done():
                connection.execute(END_SESSIONS, {"name": name})
                wait([renamed], PAUSE)
            return renamed.result()
    except OperationalError as error:
        if not isinstance(error.orig, errors.ObjectInUse):
            raise
        raise UserError(
            f"{name} is in use by sessions that this role may not end: {error.orig.diag.message_detail}\n"
            "End them and try again. Nothing was changed."
        ) from error


def rename(connection: Connection, name: str, new: str) -> str:
    old = next_to(name, f"_before_{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    with connection.execution_options(isolation_level="READ COMMITTED").begin():
        run(connection, f"ALTER DATABASE {quote(name)} RENAME TO {quote(old)}")
        run(connection, f"ALTER DATABASE {quote(new)} RENAME TO {quote(name)}")
        comment = sql.Literal(KEPT + name).as_string()
        run(connection, f"COMMENT ON DATABASE {quote(old)} IS {comment}")
    return old


def kept(connection: Connection, name: str) -> Sequence[str]:
    """Return the names of the databases that earlier restores kept."""
    return connection.scalars(ARE_KEPT, {"comment": KEPT + name}).all()


def drop(connection: Connection, name: str) -> None:
    # Without FORCE, which an ordinary role may not use while autovacuum works in the database.
    connection.execute(END_SESSIONS, {"name": name})
    run(connection, f"DROP DATABASE IF EXISTS {quote(name)}")


def next_to(name: str, suffix: str) -> str:
    """Append the suffix to the name, and shorten the name if the result would be too long for PostgreSQL."""
    return name.encode()[: LONGEST - len(suffix)].decode(errors="ignore") + suffix


def quote(name: str) -> str:
    return sql.Identifier(name).as_string()


def run(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
