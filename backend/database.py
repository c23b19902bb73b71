"""The engine, the session and the schema: everything between a URL and a database ready for use.

`engine`, `SessionLocal()`, `get_db()` and `init_db()` work on the configured database. Its engine is made when it is
first used; importing this module reads no settings. All of them take another engine, so that two applications in one
process share nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from starlette.requests import Request

from backend import migrations
from backend.config import get_settings, parse_url
from backend.migrations import drop_all, environment_marker
from backend.migrations.drop_all import Holder
from backend.models.models import Base
from backend.utc import lint_catalog, pin_utc, stray_settings

# Held for the length of a migration's or a reset's transaction, so that of many processes that start together one does
# the work. A transaction's lock, and not a session's, also holds behind a transaction-mode PgBouncer.
SCHEMA_LOCK = text("SELECT pg_advisory_xact_lock(hashtext(:name))").bindparams(name=migrations.LOCK_NAME)


@dataclass(frozen=True)
class SchemaState:
    """The revision of a database's schema, compared with the code's."""

    current: str | None
    """The revision that the database is at, None if no migration has run."""
    head: str
    """The newest revision that the code knows."""

    @property
    def is_at_head(self) -> bool:
        return self.current == self.head

    @property
    def is_ahead(self) -> bool:
        """Whether the database is at a revision that the code does not know, and so is newer than the code."""
        return self.current is not None and not migrations.is_known(self.current)

    @property
    def is_usable(self) -> bool:
        """Whether the code can serve it. A newer schema counts, or a rollback would take the service down."""
        return self.is_at_head or self.is_ahead


def connect(url: str | URL, **engine_options: object) -> Engine:
    """Make an engine, every connection of which is pinned to UTC. Nothing is connected to yet.

    The options are those of SQLAlchemy's `create_engine`.
    """
    url = url if isinstance(url, URL) else parse_url(url)
    # "fallback": a name in the URL, in a service file or in PGAPPNAME wins.
    defaults = {"connect_timeout": "5", "fallback_application_name": "procore-integrator"}
    options: dict[str, object] = {
        "hide_parameters": True,  # statements end up in logs; what users wrote does not
        "pool_pre_ping": True,  # a restarted database costs one round trip and not an error
        **engine_options,
    }
    return pin_utc(create_engine(url.set(query=defaults | url.query), **options))


@cache
def default_engine() -> Engine:
    """Return the engine on the configured database, made when it is first asked for. Raises UserError."""
    return connect(get_settings().database_url)


if TYPE_CHECKING:
    engine: Engine


def __getattr__(name: str) -> Engine:
    """Give `engine` without making it when this module is imported (PEP 562)."""
    if name == "engine":
        return default_engine()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class DefaultSession(Session):
    """A session on the engine or connection that it is given, and otherwise on the configured database."""

    def __init__(self, bind: Engine | Connection | None = None, **options: Any) -> None:  # noqa: ANN401  Session's
        super().__init__(default_engine() if bind is None else bind, **options)


SessionLocal = sessionmaker(class_=DefaultSession, autoflush=False)
"""The session factory: `SessionLocal()` on the configured database, or `SessionLocal(bind=engine)`."""


# FastAPI passes the request to a parameter of exactly this type, whatever its default is.
def get_db(request: Request = None) -> Iterator[Session]:  # type: ignore[assignment]
    """Give a request its session and its one transaction, committed before the response is sent.

    For that a route declares `Depends(get_db, scope="function")`; an exception rolls everything back. The database is
    that of the request's application; without a request it is the configured one.
    """
    bind = request.app.state.engine if request else None
    with SessionLocal(bind=bind) as session, session.begin():
        yield session


def schema_state(connection: Connection) -> SchemaState:
    return SchemaState(migrations.current(connection), migrations.head())


def utc_faults(connection: Connection) -> list[str]:
    """List what could make this database store or show a wrong time; cheap, and empty if all is well.

    It looks at the session and at the columns of the models' own tables, and at nothing else in the database.
    """
    settings = [f"The session's {name} is {value}." for name, value in stray_settings(connection).items()]
    schema = connection.dialect.default_schema_name
    found = lint_catalog(connection, schema, tables=Base.metadata.tables)
    return settings + [f"{finding}." for finding in found]


def init_db(engine: Engine | None = None, *, environment: str | None = None) -> SchemaState:
    """Bring the schema to head, and return where it stood before. There is no other way to create it.

    Without an engine that is done on the configured database, for the environment that the settings name.

    All of it is one transaction: a migration that fails leaves the database as it was. Of processes that start
    together one does the work, and the others wait. A schema newer than the code is left alone; see
    `SchemaState.is_ahead`.

    A database whose schema was built from nothing is marked with the environment; production marks any.
    """
    if engine is None:
        engine, environment = default_engine(), environment or get_settings().app_env
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
    """Give a connection in a transaction that changes the schema, while no other process is in such a transaction.

    If a lock, this one or a table's, is not free within `lock_timeout` seconds, that is an OperationalError with
    SQLSTATE 55P03. The transaction is READ COMMITTED whatever the database's default is: after the wait, it must see
    what the others did.
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
    """What a reset did before it created the schema again."""

    dropped: list[str]
    ended: list[Holder]
    """The idle connections of our role that were ended because they held locks on what was dropped."""


def reset_db(engine: Engine, *, lock_timeout: float = 5, environment: str | None = None) -> Cleared:
    """Drop whatever is in the database, known to the models or not, and create the schema; see `drop_all.contents`.

    All of it is one transaction: killed at any point, the database is as it was. Connections of our role that hold
    locks while they are idle in a transaction are ended; a lock that another connection holds for longer than the
    timeout, in seconds, is an OperationalError with SQLSTATE 55P03. The database is marked with the environment, or
    as it was marked before.
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
