"""Check the database that `dev` and the `db_` commands use: connection, schema, UTC, clock and collation."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from enum import StrEnum
from shlex import join

import psycopg
from sqlalchemy import URL, Connection, Engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError

import freshpg
from backend.config import load_settings
from backend.database import connect, schema_state, utc_faults
from backend.migrations.drift import differences
from backend.startup import asked_for_password, createdb_command, describe, is_missing, reason
from devtools.database import DIRECTORY, reason_to_use
from devtools.doctor.docker_cli import Machine
from devtools.doctor.finding import Finding, few, ok, unknown, warning, wrong
from freshpg import without_libpq_variables

_LIMITS = text("SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '2s'")
_ZONE = "SELECT setting, source, quote_ident(current_database()) FROM pg_settings WHERE name = 'TimeZone'"
_COLLATIONS = text("""
    SELECT quote_ident(datname), datname = current_database(), datcollversion, pg_database_collation_actual_version(oid)
    FROM pg_database WHERE datcollversion <> pg_database_collation_actual_version(oid)
    ORDER BY datname <> current_database(), datname
""")


class Source(StrEnum):
    """Which database it is; the value is part of the finding."""

    CONFIGURED = "the configured one"
    COMPOSE = "Compose's"
    EMBEDDED = "that of `nox -s dev`"


def check(_machine: Machine) -> Iterator[Finding]:
    settings = load_settings()
    url = settings.database_url
    source = Source.CONFIGURED if settings.is_database_configured else Source.COMPOSE
    # The variables that libpq reads from the environment are meant for another server.
    with nullcontext() if source is Source.CONFIGURED else without_libpq_variables():
        if reason_to_use(settings) is None:
            server = freshpg.running(DIRECTORY)
            if server is None:
                finding = f"No database is configured, and none answers on DB_PORT {settings.db_port}."
                cure = "`docker compose up` or `nox -s dev` starts one."
                if (DIRECTORY / "data").exists():
                    finding += " The embedded one is not running now; each command starts it."
                    cure = "To check it, run this while `nox -s dev` runs."
                yield unknown("server", finding, cure)
                return
            url = make_url(freshpg.sqlalchemy_url(freshpg.database_url(server.url, settings.postgres_db)))
            source = Source.EMBEDDED
        engine = connect(url)
        try:
            yield from check_engine(engine, source)
        finally:
            engine.dispose()


def check_engine(engine: Engine, source: Source) -> Iterator[Finding]:
    try:
        with engine.connect() as connection:
            version = str(connection.scalar(text("SHOW server_version"))).partition(" ")[0]
    except OperationalError as error:
        yield _refused(error, engine.url, source)
        return
    yield ok("server", f"PostgreSQL {version} answers at {describe(engine.url)} ({source}).")
    checks: dict[str, Callable[[Connection], Iterator[Finding]]] = {
        "schema": _schema, "drift": _drift, "utc": _utc, "clock": check_clock, "collation": _collation,
    }  # fmt: skip
    for name, look in checks.items():
        try:
            # This is never committed: the objects that the comparison creates are rolled back.
            with engine.connect() as connection:
                connection.execute(_LIMITS)
                yield from look(connection)
        except DBAPIError as error:
            said = error.orig.diag.message_primary if isinstance(error.orig, psycopg.Error) else None
            yield unknown(name, f"The database refused: {said or type(error.orig).__name__}.")


def _refused(error: OperationalError, url: URL, source: Source) -> Finding:
    """Say why a connection failed. libpq gives no SQLSTATE, so this tries another connection to find out."""
    where, user, name = describe(url), str(url.username), str(url.database)
    if is_missing(url):
        create = {
            Source.CONFIGURED: createdb_command(url),
            Source.COMPOSE: createdb_command(url.set(host="db")),
            Source.EMBEDDED: "nox -s db_init",
        }[source]
        return wrong("server", f"There is no database {name!r} at {where}.", f"Create it: `{create}`.")
    if not asked_for_password(error):
        cure = "Start that server, or correct DATABASE_URL or POSTGRES_HOST and POSTGRES_PORT."
        return wrong("server", f"Could not connect to {where}: {reason(error)}.", cure)
    cure = "Correct it in DATABASE_URL or POSTGRES_PASSWORD."
    if source is Source.COMPOSE:
        psql = ["docker", "compose", "exec", "db", "psql", "-U", user, "-d", "postgres", "-c"]
        change = f"`{join(psql)} '\\password'`"
        keeps = "A volume keeps the user and the password that it was created with"
        cure = f"{keeps}: set POSTGRES_USER and POSTGRES_PASSWORD to those, or change its password: {change}."
    return wrong("server", f"The server at {where} refuses user {user!r} and its password.", cure)


def _schema(connection: Connection) -> Iterator[Finding]:
    state = schema_state(connection)
    if state.current is None:
        yield warning("schema", "The database has no schema yet.", "`nox -s db_init`.")
    elif state.is_ahead:
        finding = f"The schema is at revision {state.current}, which this code does not know."
        cure = "Check out the code that created it, or `nox -s db_reset`, which deletes every row."
        yield wrong("schema", finding, cure)
    elif not state.is_at_head:
        finding = f"The schema is behind, at revision {state.current}, and the code at {state.head}."
        yield wrong("schema", finding, "`nox -s db_init`, or the next start.")
    else:
        yield ok("schema", f"The schema is at head, {state.head}.")


def _drift(connection: Connection) -> Iterator[Finding]:
    if schema_state(connection).current is None:
        yield unknown("drift", "There is no schema to compare with the models.")
    elif found := differences(connection):
        finding = f"The database differs from the models: {few([each.place for each in found])}."
        yield wrong("drift", finding, "`nox -s db_check` says how, and what to do.")
    else:
        yield ok("drift", "The database matches the models.")


def _utc(connection: Connection) -> Iterator[Finding]:
    faults = utc_faults(connection)
    for fault in faults[:3]:
        yield wrong("utc", fault, "`nox -s utc_check` shows how it affects timestamps.")
    # This opens a session like any other client; the API sets its own sessions to UTC.
    arguments, parameters = connection.dialect.create_connect_args(connection.engine.url)
    with psycopg.connect(*arguments, **parameters) as session:
        zone, source, database = session.execute(_ZONE).fetchone() or ("UTC", "", "")
    if zone not in ("UTC", "Etc/UTC", "GMT"):
        finding = f"Sessions of psql and other clients start in {zone}, by {source}; the API sets UTC."
        yield warning("utc", finding, f"In `nox -s db_shell`: ALTER DATABASE {database} SET timezone = 'UTC'")
    elif not faults:
        yield ok("utc", "Sessions start in UTC, and every timestamp column of the models is safe.")


def check_clock(connection: Connection) -> Iterator[Finding]:
    asked = time.time()
    theirs = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
    answered = time.time()
    apart = max(theirs - answered, asked - theirs, 0.0)
    if apart < 2:  # noqa: PLR2004  too little to matter
        yield ok("clock", "The database's clock agrees with this machine's.")
    else:
        side = "ahead of" if theirs > answered else "behind"
        cure = "Set both by NTP (`timedatectl set-ntp true`); after sleep, restart Docker Desktop or WSL."
        yield warning("clock", f"The database's clock is {apart:.0f} s {side} this machine's.", cure)


def _collation(connection: Connection) -> Iterator[Finding]:
    """Find databases whose collation version differs from the server's, as happens after a change of the image."""
    rows = connection.execute(_COLLATIONS).all()
    if not rows:
        yield ok("collation", "The collation version matches the server's.")
        return
    # Indexes on text depend on the collation, so they are rebuilt first. Each -c runs in its own transaction.
    statements = [f"REINDEX DATABASE {name}" for name, is_current, _, _ in rows if is_current]
    statements += [f"ALTER DATABASE {name} REFRESH COLLATION VERSION" for name, _, _, _ in rows]
    options = [word for statement in statements for word in ("-c", statement)]
    names, (_, _, recorded, actual) = ", ".join(row[0] for row in rows), rows[0]
    finding = f"Text may be sorted wrongly in {names}: collation version {recorded}, the server's {actual}."
    yield warning("collation", finding, f"`{join(['nox', '-s', 'db_shell', '--', *options])}`.")
