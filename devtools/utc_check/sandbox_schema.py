"""Where the proof takes place: a schema of its own, which goes whatever happens, and the ways into it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, Table, create_engine, event

# What a run that was killed leaves is known by its name and by this comment, and by nobody holding its lock.
_PREFIX = "utc_check_"
_COMMENT = "The proof of UTC timestamps works here; it is removed when that ends."
_LOCK_SECONDS = 10


class Ground:
    """A schema in the database of an engine.

    Every transaction of the engines made here begins with `SET LOCAL search_path`, and so can reach nothing but that
    schema; a setting of the session's would not hold behind a transaction-mode pooler, and would leak there. All other
    statements say the schema's name.
    """

    def __init__(
        self, engine: Engine, schema: str, oracle: psycopg.Connection[Any], login: dict[str, Any]
    ) -> None:
        self.schema = schema
        self.oracle = oracle
        """A connection that nothing here has touched: it is asked for whole numbers alone."""
        self._engine = engine
        self._login = login

    def table(self, table: Table) -> sql.Identifier:
        return sql.Identifier(self.schema, table.name)

    @contextmanager
    def twin(self) -> Iterator[Engine]:
        """Lend an engine that does to its connections whatever the given one does, with new connections."""
        # A pool is recreated with its listeners, which is where an engine is pinned; that is what `dispose` does too.
        given = self._engine
        pool, options = given.pool.recreate(), given.get_execution_options()
        twin = Engine(
            pool, given.dialect, given.url, hide_parameters=given.hide_parameters, execution_options=options
        )
        with self._kept_here(twin):
            yield twin

    @contextmanager
    def stranger(self) -> Iterator[Engine]:
        """Lend an engine that somebody made who has never heard of UTC."""

        def connect() -> psycopg.Connection[Any]:
            connection = self._connect()
            # Of no other style can psycopg read anything.
            connection.execute("SET datestyle = 'ISO'")
            connection.commit()
            return connection

        with self._kept_here(create_engine("postgresql+psycopg://", creator=connect)) as engine:
            yield engine

    @contextmanager
    def client(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection as another program makes it."""
        with self._connect() as connection:
            connection.autocommit = True
            yield connection

    @contextmanager
    def _kept_here(self, engine: Engine) -> Iterator[Engine]:
        path = sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(self.schema)).as_string()

        def keep_here(connection: Connection) -> None:
            raw: Any = connection.connection.driver_connection
            if raw.autocommit:
                raise RuntimeError("a proof takes place in transactions: this engine is in autocommit")
            connection.exec_driver_sql(path)

        event.listen(engine, "begin", keep_here)
        try:
            yield engine
        finally:
            engine.dispose()

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self._login)


@contextmanager
def break_ground(engine: Engine) -> Iterator[Ground]:
    """Make a schema in this engine's database, and remove it at the end, with whatever an earlier run left."""
    login = _login(engine)
    schema = f"{_PREFIX}{secrets.token_hex(6)}"
    name = sql.Identifier(schema)
    with (
        psycopg.connect(**login, autocommit=True) as owner,
        psycopg.connect(**login, autocommit=True) as oracle,
    ):
        owner.execute(sql.SQL("SET lock_timeout = {}").format(f"{_LOCK_SECONDS}s"))
        _remove_leftovers(owner)
        owner.execute("SELECT pg_advisory_lock(hashtext(%s))", [schema])
        with owner.transaction():
            owner.execute(sql.SQL("CREATE SCHEMA {}").format(name))
            owner.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(name, _COMMENT))
        try:
            yield Ground(engine, schema, oracle, login)
        finally:
            _drop(owner, schema)


@contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Have libpq's variables say this, for connections that are made within; None takes one away."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _login(engine: Engine) -> dict[str, Any]:
    """Return what libpq needs to come where the engine's connections come."""
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        info: psycopg.ConnectionInfo = raw.info
        # The zone and the style are left to the environment, for it is they that are put to the test.
        login: dict[str, Any] = {**info.get_parameters(), "password": info.password or None}
    return {name: value for name, value in login.items() if value is not None}


def _remove_leftovers(owner: psycopg.Connection[Any]) -> None:
    found = owner.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE %s AND obj_description(oid, 'pg_namespace') = %s "
        "AND pg_has_role(nspowner, 'MEMBER')",
        [_PREFIX.replace("_", r"\_") + "%", _COMMENT],
    ).fetchall()
    for (schema,) in found:
        free = owner.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [schema]).fetchone()
        if free == (True,):
            _drop(owner, schema)
            owner.execute("SELECT pg_advisory_unlock(hashtext(%s))", [schema])


def _drop(owner: psycopg.Connection[Any], schema: str) -> None:
    owner.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
