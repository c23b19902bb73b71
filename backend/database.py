"""The engine, the session and the schema: everything between a URL and a database ready for use.

Nothing here reads settings: who calls passes values in. Two applications in one process share nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.orm import Session, sessionmaker
from starlette.requests import Request

from backend import migrations
from backend.models.models import Base
from backend.utc import lint_catalog, pin_utc, stray_settings

SessionLocal = sessionmaker(autoflush=False)
"""The session factory, bound to nothing: `SessionLocal(bind=engine)`."""

# Held for the length of a migration's or a reset's transaction, so that of many processes that start together one does
# the work. A transaction's lock, and not a session's, also holds behind a transaction-mode PgBouncer.
SCHEMA_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('procore_integrator schema'))")


@dataclass(frozen=True)
class SchemaState:
    """Where a database's schema stands beside the code's."""

    current: str | None
    """The revision that the database is at, None where no migration has run."""
    head: str
    """The newest revision that the code knows."""

    @property
    def is_at_head(self) -> bool:
        return self.current == self.head

    @property
    def is_ahead(self) -> bool:
        """Whether the database is at a revision that the code has never heard of, and so is newer than the code."""
        return self.current is not None and self.current not in migrations.known()

    @property
    def is_usable(self) -> bool:
        """Whether the code can serve it. A newer schema counts, or a rollback would take the service down."""
        return self.is_at_head or self.is_ahead


def connect(url: str | URL, **engine_options: object) -> Engine:
    """Make an engine, every connection of which is pinned to UTC. Nothing is connected to yet.

    The options are those of SQLAlchemy's `create_engine`.
    """
    url = make_url(url)
    defaults = {"connect_timeout": "5", "application_name": "procore-integrator"}
    options: dict[str, object] = {
        "hide_parameters": True,  # statements end up in logs; what users wrote does not
        "pool_pre_ping": True,  # a restarted database costs one round trip and not an error
        **engine_options,
    }
    return pin_utc(create_engine(url.set(query=defaults | url.query), **options))


def get_db(request: Request) -> Iterator[Session]:
    """Give a request its session and its one transaction, committed before the response is sent.

    That takes `Depends(get_db, scope="function")`; an error on the way rolls everything back.
    """
    with SessionLocal(bind=request.app.state.engine) as session, session.begin():
        yield session


def schema_state(connection: Connection) -> SchemaState:
    return SchemaState(migrations.current(connection), migrations.head())


def utc_faults(connection: Connection) -> list[str]:
    """Say what could make this database store or show a wrong time, cheaply: nothing, if all is well.

    It looks at the session and at the columns of the models' own tables; what else the database holds is not ours to
    judge.
    """
    settings = [f"The session's {name} is {value}." for name, value in stray_settings(connection).items()]
    schema = connection.dialect.default_schema_name
    found = lint_catalog(connection, schema, tables=Base.metadata.tables)
    return settings + [f"{finding}." for finding in found]


def init_db(engine: Engine) -> SchemaState:
    """Bring the schema to head, and return where it stood before. The one way in which a schema comes to be.

    All of it is one transaction: a migration that fails leaves the database as it was. Processes that start together
    wait for the one that does the work. A schema newer than the code is left alone; `SchemaState.is_ahead` tells.
    """
    with engine.connect() as connection:
        before = schema_state(connection)
    if not before.is_usable:
        with alone(engine) as connection:
            before = schema_state(connection)
            if not before.is_usable:
                migrations.upgrade(connection)
    return before


@contextmanager
def alone(engine: Engine, *, lock_timeout: float | None = None) -> Iterator[Connection]:
    """Lend a connection in a transaction that changes the schema, when no other process is in one.

    A lock, this one or a table's, that is not had within `lock_timeout` seconds is an OperationalError with SQLSTATE
    55P03. The transaction is READ COMMITTED whatever the database's default is: after the wait, it must see what the
    others did.
    """
    with engine.begin() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        if lock_timeout is not None:
            milliseconds = max(1, round(lock_timeout * 1000))  # to PostgreSQL, 0 is no limit
            connection.execute(
                text("SELECT set_config('lock_timeout', :timeout, true)"), {"timeout": f"{milliseconds}ms"}
            )
        connection.execute(SCHEMA_LOCK)
        yield connection


def reset_db(engine: Engine, *, lock_timeout: float = 5) -> list[str]:
    """Drop every table, view, sequence, routine and type, known to the models or not, and build the schema anew.

    Returns what was dropped. All of it is one transaction: killed at any point, the database is as it was. A lock that
    somebody else holds for longer than the timeout, in seconds, is an OperationalError with SQLSTATE 55P03. What
    belongs to an extension stays.
    """
    with alone(engine, lock_timeout=lock_timeout) as connection:
        found = contents(connection)
        if found:
            # Without parameters psycopg sends many statements at once, and takes a % in a name as it is.
            statements = ";".join(statement for _, statement in found)
            connection.exec_driver_sql(statements, execution_options={"no_parameters": True})
        migrations.upgrade(connection)
    return [name for name, _ in found]


def contents(connection: Connection) -> list[tuple[str, str]]:
    """List what a reset drops, tables first: what each thing is called, and the statement that drops it."""
    rows = connection.execute(CONTENTS)
    return [(f"{kind.lower()} {name}", f"DROP {kind} IF EXISTS {name} CASCADE") for kind, name in rows]


# What belongs to an extension stays; what belongs to another thing, as a serial's sequence or a range's constructor
# does, goes with it.
CONTENTS = text("""
WITH ours AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
), things AS (
    SELECT 'pg_class'::regclass AS catalog, c.oid,
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                          WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END AS kind,
           format('%I.%I', nspname, relname) AS name
    FROM pg_class AS c JOIN ours ON ours.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
       OR (relkind = 'S' AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass
                                         AND objid = c.oid AND deptype IN ('a', 'i')))
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 'ROUTINE',
           format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(p.oid))
    FROM pg_proc AS p JOIN ours ON ours.oid = pronamespace
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END,
           format('%I.%I', nspname, typname)
    FROM pg_type AS t JOIN ours ON ours.oid = typnamespace
    WHERE typtype IN ('e', 'd', 'r')
)
SELECT kind, name FROM things
WHERE NOT EXISTS (SELECT FROM pg_depend AS d
                  WHERE d.classid = things.catalog AND d.objid = things.oid
                    AND (d.deptype = 'e' OR d.deptype = 'i' AND d.classid <> 'pg_class'::regclass))
ORDER BY kind <> 'TABLE', kind, name
""")
