"""Startup: wait for the database and bring its schema to head, or say what is wrong and how to fix it."""

import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from psycopg import OperationalError as DriverError
from psycopg.conninfo import make_conninfo
from psycopg.errors import DeadlockDetected, LockNotAvailable
from psycopg.pq import Conninfo, PGconn, Ping
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from backend.config import AppEnv, Settings
from backend.database import SchemaState, connect, init_db
from backend.database_url import libpq_parameters
from backend.errors import UserError
from backend.migrations import drop_all
from backend.migrations.drift import differences

# Warnings appear without any logging configuration; `serve` formats them like uvicorn's lines.
logger = logging.getLogger("backend")

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds
# The message of a server that has no free connection. libpq passes on only this text, without an error code.
TOO_MANY = re.compile("too many (clients|connections)|connection slots|no more connections")
PREAMBLE = re.compile(r'^.*?connection failed: (connection to server .*?(port \S+|") failed: )?')
MOST_NAMED = 3  # the number of differences that a start names; it counts the others


def start_database(
    engine: Engine, settings: Settings, *, report: Callable[[str], None] = logger.warning
) -> SchemaState:
    """Wait for the database, bring its schema to head and return its state before. Raises UserError.

    In development, a schema newer than the code stops the start: somebody has switched branches. Elsewhere it is
    reported and served, because the service must survive a rollback.
    """
    with database_errors_reported(engine):
        wait_for_database(engine, settings.database_wait_seconds, report=report)
        state = init_db(engine, environment=settings.app_env.value)
    if state.is_ahead:
        message = (
            f"The schema of {describe(engine.url)} is at revision {state.current}, which this code does not know "
            f"(its newest is {state.head})."
        )
        if settings.app_env is AppEnv.DEVELOPMENT:
            raise UserError(
                f"{message}\nCheck out the code that made it, or create the schema again with `nox -s db_reset`."
            )
        report(f"{message} Continuing with the newer schema.")
    return state


@contextmanager
def database_errors_reported(engine: Engine) -> Iterator[None]:
    """Turn errors of the database or its driver into a short UserError.

    If a lock was not granted in time, it lists connections that may hold it.
    """
    try:
        yield
    except DBAPIError as error:
        words = str(error.orig).strip().partition("\n")[0]
        message = f"The database at {describe(engine.url)} reported an error: {words}."
        message = " ".join([message, *getattr(error, "__notes__", [])])
        if isinstance(error.orig, LockNotAvailable | DeadlockDetected):
            message = f"Not done in {describe(engine.url)}: another connection holds a lock."
            with suppress(DBAPIError), engine.connect() as connection:
                if holders := drop_all.lock_holders(connection):
                    message += "\n  ".join([" It may be one of these:", *holders])
            message += "\nWait for it, or end it: `nox -s db_shell -- -c 'SELECT pg_terminate_backend(PID)'`."
        raise UserError(message) from error


def report_drift(engine: Engine, *, report: Callable[[str], None] = logger.warning) -> None:
    """Report in two lines how a development database differs from the models; it takes about 40 ms."""
    try:
        with engine.connect() as connection:
            found = differences(connection)
    except SQLAlchemyError:
        # `nox -s db_check` reports a role without the necessary privilege, or a model that does not compile; the
        # health check reports a server that does not answer.
        return
    if not found:
        return
    places = [each.place for each in found]
    rest = f" and {len(places) - MOST_NAMED} more" if len(places) > MOST_NAMED else ""
    report(
        f"The database {describe(engine.url)} differs from the models: {', '.join(places[:MOST_NAMED])}{rest}."
    )
    report(
        "`nox -s db_check` shows how. `nox -s db_revision` drafts what the migrations lack; `nox -s db_reset` creates "
        "the schema again."
    )


def wait_for_database(
    engine: Engine, seconds: float, *, report: Callable[[str], None] = logger.warning
) -> None:
    """Wait until the database accepts a connection. Raises UserError after the time, or if waiting cannot help."""
    deadline = time.monotonic() + seconds
    pause, is_announced = FIRST_PAUSE, False
    while True:
        try:
            with engine.connect():
                return
        except OperationalError as error:
            said = reason(error)
            refusal = explain_refusal(error, engine.url)
            if refusal is not None:
                raise UserError(refusal) from error
            if time.monotonic() + pause > deadline:
                raise UserError(
                    f"Could not connect to {describe(engine.url)} within {seconds:g} s: {said}.\n"
                    f"Start the database (`docker compose up -d db`), or correct DATABASE_URL or POSTGRES_HOST; "
                    f"if neither is set, `nox -s dev` finds or starts a database.{libpq_variables_note()}"
                ) from error
        if pause == LONGEST_PAUSE and not is_announced:
            report(f"Waiting up to {seconds:g} s (DATABASE_WAIT_SECONDS) for {describe(engine.url)}: {said}.")
            is_announced = True
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def explain_refusal(error: OperationalError, url: URL) -> str | None:
    """Return the reason if waiting cannot help, or None if it may help.

    libpq reports no SQLSTATE for a failed connection, and the server's message may be in any language. But libpq says
    whether the server asked for a password, and its ping says whether the server accepts connections.
    """
    if TOO_MANY.search(str(error.orig)):
        return None
    if asked_for_password(error):
        return missing_database(url) or (
            f"The database at {describe(url)} refused user {url.username!r}: {reason(error)}.\n"
            "Correct it in DATABASE_URL or POSTGRES_PASSWORD. If it is Compose's database: its volume keeps the "
            f"password that it was created with.{libpq_variables_note()}"
        )
    answer = ping(url)
    # If SSL is required but the server has none, it closes the connection without an answer.
    is_up = answer == Ping.OK or ping(url, sslmode="disable") == Ping.OK
    # The server may have come up after the attempt that failed.
    if answer != Ping.NO_ATTEMPT and (not is_up or can_connect(url)):
        return None
    return missing_database(url) or (
        f"Could not connect to {describe(url)}: {reason(error)}.\n"
        f"Correct DATABASE_URL; waiting would not help.{libpq_variables_note()}"
    )


def missing_database(url: URL) -> str | None:
    """Say how to create the database if it does not exist."""
    if not is_missing(url):
        return None
    return (
        f"Database {url.database!r} does not exist at {describe(url)}.\n"
        f"Create it (`{createdb_command(url)}`), or set DATABASE_URL or POSTGRES_DB to one that exists."
    )


def is_missing(url: URL) -> bool:
    """Whether the database does not exist; a connection to the database `postgres` shows that."""
    try:
        with connect(url.set(database="postgres"), poolclass=NullPool).connect() as connection:
            names = connection.scalars(text("SELECT datname FROM pg_database")).all()
    except OperationalError:
        return False
    return url.database not in names


def createdb_command(url: URL) -> str:
    name = str(url.database)
    if url.host == "db":  # only Compose's containers know this name
        return shlex.join(["docker", "compose", "exec", "db", "createdb", "-U", str(url.username), name])
    parameters = libpq_parameters(url)
    options = {"-h": parameters.get("host"), "-p": parameters.get("port"), "-U": url.username}
    words = [word for option, value in options.items() if value for word in (option, value)]
    return shlex.join(["createdb", *words, name])


def ping(url: URL, **parameters: str) -> Ping:
    """Ask whether a server accepts connections, as pg_isready does; NO_ATTEMPT if libpq refuses the parameters."""
    return Ping(PGconn.ping(make_conninfo(**libpq_parameters(url) | parameters).encode()))


def libpq_variables_note() -> str:
    """Name the environment variables from which libpq fills the gaps of a URL; empty if none is set."""
    known = {option.envvar.decode() for option in Conninfo.parse(b"") if option.envvar}
    found = sorted(known.intersection(os.environ))
    return f" libpq also reads {', '.join(found)} from the environment." if found else ""


def describe(url: URL) -> str:
    """Return a name of the database for messages, without user and password: `127.0.0.1:5432/name`."""
    parameters = libpq_parameters(url)
    service = parameters.get("service") or os.environ.get("PGSERVICE")
    hosts = parameters.get("host") or parameters.get("hostaddr")
    hosts = hosts or (None if service else os.environ.get("PGHOST"))
    if not hosts:
        place = f"service {service}" if service else "the local socket"
        return f"{place}, database {url.database}"
    names = [f"[{host}]" if ":" in host else host for host in hosts.split(",")]
    ports = (parameters.get("port") or os.environ.get("PGPORT") or "5432").split(",")
    ports = ports * len(names) if len(ports) == 1 else ports
    # PGPORT may list more ports than there are hosts, which libpq reports.
    places = (f"{host}:{port}" for host, port in zip(names, ports, strict=False))
    return f"{','.join(places)}/{url.database}"


def reason(error: OperationalError) -> str:
    """Return libpq's message for the last address that it tried, without the address and without its advice."""
    lines = [
        line for line in str(error.orig).splitlines() if line.strip() and not line.startswith(("\t", " "))
    ]
    words = PREAMBLE.sub("", lines[-1], count=1) if lines else "no reason given"
    return " ".join(words.split()).removesuffix(".")


def asked_for_password(error: OperationalError) -> bool:
    """Whether the server asked for a password before this connection failed, which shows that it is running."""
    pgconn = error.orig.pgconn if isinstance(error.orig, DriverError) else None
    return pgconn is not None and pgconn.used_password


def can_connect(url: URL) -> bool:
    try:
        connect(url, poolclass=NullPool).connect().close()
    except OperationalError:
        return False
    return True
