"""The engine, the session and the schema: everything between a URL and a database ready for use.

`engine`, `SessionLocal()`, `get_db()` and `init_db()` work on the configured database. Its engine is created on first
use; importing this module reads no settings. An application has its own engine, so two applications in one process
share nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from starlette.requests import Request

from backend import migrations
from backend.config import get_settings
from backend.database_url import parse_url
from backend.errors import UserError
from backend.migrations import drop_all, environment_marker
from backend.models.models import Base
from backend.utc import lint_catalog, pin_utc, stray_settings

# A migration or a reset holds this lock until its transaction ends: if many processes start together, one does the
# work. A transaction-level lock also works behind PgBouncer in transaction mode; a session-level lock would not.
SCHEMA_LOCK = text("SELECT pg_advisory_xact_lock(hashtext(:name))").bindparams(name=migrations.LOCK_NAME)


@dataclass(frozen=True)
class SchemaState:
    """The revision of a database's schema, compared with the code's."""

    current: str | None
    """The revision of the database, None if no migration has run."""
    head: str
    """The newest revision that the code knows."""

    @property
    def is_at_head(self) -> bool:
        return self.current == self.head

    @property
    def is_ahead(self) -> bool:
        """Whether the code does not know the revision of the database, which means that the schema is newer."""
        return self.current is not None and not migrations.is_known(self.current)

    @property
    def is_usable(self) -> bool:
        """Whether the code can serve it. A newer schema counts, because the service must survive a rollback."""
        return self.is_at_head or self.is_ahead


def connect(url: str | URL, **engine_options: object) -> Engine:
    """Create an engine whose connections are all pinned to UTC. It does not connect yet.

    The options are those of SQLAlchemy's `create_engine`.
    """
    url = url if isinstance(url, URL) else parse_url(url)
    # A name in the URL, in a service file or in PGAPPNAME takes precedence over this fallback.
    defaults = {"connect_timeout": "5", "fallback_application_name": "procore-integrator"}
    options: dict[str, object] = {
        "hide_parameters": True,  # statements are logged; the values that users sent are not
        "pool_pre_ping": True,  # after a restart of the database, a stale connection is replaced instead of failing
        **engine_options,
    }
    return pin_utc(create_engine(url.set(query=defaults | url.query), **options))


@cache
def default_engine() -> Engine:
    """Return the engine on the configured database, which is created on the first call. Raises UserError."""
    return connect(get_settings().database_url)


@cache
def connected_engine() -> Engine:
    """Return the default engine after its first connection. If that fails, it raises UserError."""
    engine = default_engine()
    try:
        engine.connect().close()
    except OperationalError as error:
        reason = str(error.orig).partition("\n")[0]
        raise UserError(
            f"Could not connect to the database: {reason}.\n"
            "Start it (`docker compose up -d db`), or correct DATABASE_URL or POSTGRES_HOST."
        ) from None
    return engine


if TYPE_CHECKING:
    engine: Engine


def __getattr__(name: str) -> Engine:
    """Provide `engine` without creating it when this module is imported (PEP 562)."""
    if name == "engine":
        return default_engine()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class DefaultSession(Session):
    """A session on the engine or connection that it is given, and otherwise on the configured database."""

    def __init__(self, bind: Engine | Connection | None = None, **options: Any) -> None:
        super().__init__(connected_engine() if bind is None else bind, **options)


SessionLocal = sessionmaker(class_=DefaultSession, autoflush=False)
"""The session factory: `SessionLocal()` on the configured database, or `SessionLocal(bind=engine)`."""


# `Request | None` would be honest, but FastAPI passes the request only to a parameter of exactly this type.
def get_db(request: Request = None) -> Iterator[Session]:  # type: ignore[assignment]  # see above
    """Give a request its session and its one transaction, which is committed before the response is sent.

    A route declares `Depends(get_db, scope="function")` for that; an exception rolls everything back. The session uses
    the database of the request's application; without a request, it uses the configured database.
    """
    bind = request.app.state.engine if request else None
    with SessionLocal(bind=bind) as session, session.begin():
        yield session


def schema_state(connection: Connection) -> SchemaState:
    return SchemaState(migrations.current(connection), migrations.head())


def utc_faults(connection: Connection) -> list[str]:
    """List what could make this database store or show a wrong time. The check is cheap; the list is usually empty.

    It checks the session's settings and the columns of the models' own tables, and nothing else in the database.
    """
    settings = [f"The session's {name} is {value}." for name, value in stray_settings(connection).items()]
    schema = connection.dialect.default_schema_name
    found = lint_catalog(connection, schema, tables=Base.metadata.tables)
    return settings + [f"{finding}." for finding in found]


def init_db(engine: Engine | None = None, *, environment: str | None = None) -> SchemaState:
    """Bring the schema to head, and return its state before. This is the only way to create the schema.

    Without an engine, it works on the configured database and uses the environment from the settings.

    Everything runs in one transaction: a migration that fails leaves the database as it was. A schema newer than the
    code is left alone; see `SchemaState.is_ahead`.

    If it creates the schema in an empty database, it marks the database with the environment; production always does.
    """
    if engine is None:
        engine, environment = connected_engine(), environment or get_settings().app_env
    with engine.connect() as connection:
        before = schema_state(connection)
        needs_mark = environment == "production" and environment_marker.read(connection) != "production"
    if before.is_usable and not needs_mark:
        return before
    with schema_lock(engine) as connection:
        before = schema_state(connection)
        is_new = before.current is None and not drop_all.contents(connection)
        if not before.is_usable:
            migrations.upgrade(connection)
        if environment is not None and (needs_mark or is_new):
            environment_marker.write(connection, environment)
    return before


@contextmanager
def schema_lock(engine: Engine, *, lock_timeout: float | None = None) -> Iterator[Connection]:
    """Yield a connection in the only transaction that may change the schema; other processes wait for it.

    If this lock, or a lock on a table, is not granted within `lock_timeout` seconds, PostgreSQL raises an
    OperationalError with SQLSTATE 55P03. The transaction is READ COMMITTED regardless of the database's default,
    because it must see what other processes committed while it waited.
    """
    with engine.begin() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        if lock_timeout is not None:
            limit = text("SELECT set_config('lock_timeout', :limit, true)")
            connection.execute(limit, {"limit": f"{lock_timeout}s"})
        connection.execute(SCHEMA_LOCK)
        yield connection


def reset_db(engine: Engine, *, lock_timeout: float = 5, environment: str | None = None) -> list[str]:
    """Drop everything in the database, known to the models or not, and create the schema; return what was dropped.

    Everything runs in one transaction: if it is killed at any point, the database is unchanged. If another connection
    holds a lock for longer than the timeout, in seconds, PostgreSQL raises an OperationalError with SQLSTATE 55P03. The
    database is marked with the environment; without one, it keeps its mark.
    """
    with schema_lock(engine, lock_timeout=lock_timeout) as connection:
        mark = environment or environment_marker.read(connection)
        found = drop_all.contents(connection)
        drop_all.drop(connection, found)
        migrations.upgrade(connection)
        if mark is not None:
            environment_marker.write(connection, mark)
    return [name for name, _ in found]
