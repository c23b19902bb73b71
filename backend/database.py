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
from backend.migrations import drop_all, environment_marker
from backend.migrations.drop_all import Holder
from backend.models.models import Base
from backend.utc import lint_catalog, pin_utc, stray_settings

SessionLocal = sessionmaker(autoflush=False)
"""The session factory, bound to nothing: `SessionLocal(bind=engine)`."""

# Held for the length of a migration's or a reset's transaction, so that of many processes that start together one does
# the work. A transaction's lock, and not a session's, also holds behind a transaction-mode PgBouncer.
SCHEMA_LOCK = text("SELECT pg_advisory_xact_lock(hashtext(:name))").bindparams(name=migrations.LOCK_NAME)


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
        return self.current is not None and not migrations.is_known(self.current)

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


def init_db(engine: Engine, *, environment: str | None = None) -> SchemaState:
    """Bring the schema to head, and return where it stood before. The one way in which a schema comes to be.

    All of it is one transaction: a migration that fails leaves the database as it was. Processes that start together
    wait for the one that does the work. A schema newer than the code is left alone; `SchemaState.is_ahead` tells.

    A database whose schema was built from nothing is marked with the environment; production marks any.
    """
    with engine.connect() as connection:
        before = schema_state(connection)
        is_to_mark = environment == "production" != environment_marker.read(connection)
    if before.is_usable and not is_to_mark:
        return before
    with alone(engine) as connection:
        before = schema_state(connection)
        if not before.is_usable:
            migrations.upgrade(connection)
        if environment is not None and (is_to_mark or before.current is None):
            environment_marker.write(connection, environment)
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


@dataclass(frozen=True)
class Cleared:
    """What a reset did before it built the schema anew."""

    dropped: list[str]
    ended: list[Holder]
    """The connections that were ended, for they were ours, idle, and held on to what was dropped."""


def reset_db(engine: Engine, *, lock_timeout: float = 5, environment: str | None = None) -> Cleared:
    """Drop whatever is in the database, known to the models or not, and build the schema anew; see `drop_all.contents`.

    All of it is one transaction: killed at any point, the database is as it was. Connections of ours that hold on to
    things, idle in a transaction, are ended; a lock that somebody else holds for longer than the timeout, in seconds,
    is an OperationalError with SQLSTATE 55P03. The database is marked with the environment, or as it was marked.
    """
    with alone(engine, lock_timeout=lock_timeout) as connection:
        mark = environment or environment_marker.read(connection)
        ended = drop_all.end_idle(connection)
        found = drop_all.contents(connection)
        drop_all.drop(connection, found)
        migrations.upgrade(connection)
        if mark is not None:
            environment_marker.write(connection, mark)
    return Cleared([name for name, _ in found], ended)
