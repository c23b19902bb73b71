"""From settings to a database that is there and at head, or to a line that says what is wrong and what cures it."""

import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg import OperationalError as DriverError
from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from backend.config import AppEnv, Settings
from backend.database import SchemaState, connect, init_db
from backend.errors import UserError
from backend.migrations.drift import Difference, differences

logger = logging.getLogger("uvicorn.error")

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds
LOCK_NOT_AVAILABLE, INSUFFICIENT_PRIVILEGE, READ_ONLY = "55P03", "42501", "25006"
APART = (
    "A pool that hands out single statements cannot hold a transaction. Set DATABASE_URL to PostgreSQL itself, or have "
    "the pool hand out transactions (pool_mode = transaction)."
)
NAMED = 3  # differences that a start names before it counts the rest


def start_database(
    engine: Engine, settings: Settings, *, tell: Callable[[str], None] = logger.info
) -> SchemaState:
    """Wait for the database, bring its schema to head and return where it stood. Raises UserError.

    A schema newer than the code stops a start in development, where somebody has switched branches; elsewhere the
    service must survive a rollback, so it is told and left.
    """
    with plain_refusals(engine.url):
        wait_for_database(engine, settings.database_wait_seconds, tell=tell)
        state = init_db(engine, environment=settings.app_env.value)
    if state.is_ahead:
        message = (
            f"The schema of {describe(engine.url)} is at revision {state.current}, which this code does not know: "
            f"its own is {state.head}."
        )
        if settings.app_env is AppEnv.DEVELOPMENT:
            raise UserError(
                f"{message}\nCheck out the code that made it, or build the database anew with `nox -s db_reset`."
            )
        tell(f"{message} Going on, as a rollback would.")
    return state


@contextmanager
def plain_refusals(url: URL) -> Iterator[None]:
    """Turn what the database or its driver refuses into a UserError of one line."""
    try:
        yield
    except DBAPIError as error:
        message = f"The database at {describe(url)} refused: {first_line(error)}."
        if sqlstate(error) == LOCK_NOT_AVAILABLE:
            message += (
                "\nAnother connection holds a lock on what is to be changed, and nothing was: try again when it is "
                "done. `nox -s db_shell -- -c 'TABLE pg_stat_activity'` shows who it is."
            )
        if is_apart(error):
            message += "\n" + APART
        raise UserError(message) from error


def is_apart(error: DBAPIError) -> bool:
    """Whether a pool between us and PostgreSQL has no transactions. Its words are all that it tells: it has no code."""
    return "statement pooling" in first_line(error)


def first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


def sqlstate(error: DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def compare_with_models(engine: Engine) -> list[Difference]:
    """Tell what differs between a database and the models. Raises UserError where its role may not."""
    try:
        with engine.connect() as connection:
            return differences(connection)
    except DBAPIError as error:
        if sqlstate(error) not in (INSUFFICIENT_PRIVILEGE, READ_ONLY):
            raise
        raise UserError(
            f"The database at {describe(engine.url)} cannot be compared with the models, which are made for that in a "
            f"schema that is rolled back: {first_line(error)}.\n"
            + (
                f"Let the role make one: `GRANT CREATE ON DATABASE {engine.url.database} TO {engine.url.username}`."
                if sqlstate(error) == INSUFFICIENT_PRIVILEGE
                else "Compare the server that it is a copy of, which takes writes."
            )
        ) from error


def tell_drift(
    engine: Engine, settings: Settings, *, tell: Callable[[str], None] = logger.warning
) -> threading.Thread | None:
    """Have a thread say in two lines where a development database differs from the models; nothing where it does not.

    The start does not wait for it (some 40 ms), and the end does not either.
    """
    if settings.app_env is not AppEnv.DEVELOPMENT:
        return None
    thread = threading.Thread(target=_tell_drift, args=(engine, tell), name="drift", daemon=True)
    thread.start()
    return thread


def _tell_drift(engine: Engine, tell: Callable[[str], None]) -> None:
    try:
        found = compare_with_models(engine)
    except (UserError, DBAPIError):
        # Who wants to know asks `nox -s db_check`; a server that has gone away is told elsewhere.
        return
    if not found:
        return
    places = [each.title if each.is_whole else f"{each.title} of {each.thing.table}" for each in found]
    rest = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    tell(f"The database {describe(engine.url)} differs from the models: {', '.join(places[:NAMED])}{rest}.")
    tell(
        "`nox -s db_check` says how, and what to do: `nox -s db_revision` for what the migrations lack, "
        "`nox -s db_reset` for a database built anew."
    )


def wait_for_database(engine: Engine, seconds: float, *, tell: Callable[[str], None] = logger.info) -> None:
    """Return once the database answers. Raises UserError when it refuses us, or the time is up."""
    deadline = time.monotonic() + seconds
    pause, told = FIRST_PAUSE, False
    while True:
        try:
            with engine.connect():
                return
        except OperationalError as error:
            is_last = time.monotonic() + pause > deadline
            refusal = explain_refusal(error, engine.url, look=is_last or pause == FIRST_PAUSE)
            if refusal is not None:
                raise UserError(refusal) from error
            if is_last:
                raise UserError(
                    f"The database at {describe(engine.url)} was not to be had for {seconds:g} s: {reason(error)}.\n"
                    "Start it (`docker compose up -d db`), set DATABASE_URL to where it is, or have one found by "
                    "`nox -s dev` and `nox -s db_init`."
                ) from error
        if pause == LONGEST_PAUSE and not told:
            tell(f"Waiting for the database at {describe(engine.url)}, at most {seconds:g} s.")
            told = True
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def explain_refusal(error: OperationalError, url: URL, *, look: bool = True) -> str | None:
    """Say why a server that answers will not have us, or None where waiting may help.

    libpq gives no SQLSTATE for a connection that failed, and the server's words are in its own language. What it does
    tell is whether a password was asked for: a server that asked has started, and would say the same again. A server
    that asks for none is known by its database `postgres`, at the price of another attempt, if we `look`.
    """
    if is_apart(error):
        return f"The database at {describe(url)} refuses: {first_line(error)}.\n{APART}"
    asked = asked_for_password(error)
    if not asked and not look:
        return None
    if can_connect(url.set(database="postgres")):
        if can_connect(url):
            return None  # the server came up between the attempt that failed and these
        given = {"-h": url.host, "-p": str(url.port or 5432), "-U": url.username}
        options = [word for option, value in given.items() if value for word in (option, value)]
        return (
            f"There is no database {url.database!r} at {describe(url)}.\n"
            f"Create it (`{shlex.join(['createdb', *options, str(url.database)])}`), "
            "or set DATABASE_URL or POSTGRES_DB to one that is there."
        )
    if not asked:
        return None
    return (
        f"The database at {describe(url)} refuses user {url.username!r}: {reason(error)}.\n"
        "Set the password that it knows in DATABASE_URL or POSTGRES_PASSWORD. A Compose volume keeps the password that "
        "it was made with: `docker compose down -v` makes a new one, and deletes its data."
    )


def describe(url: URL) -> str:
    """Name a database for a person, without user or password: `127.0.0.1:5432/name`."""
    host = url.query.get("host", url.host) or "the local socket"
    hosts = host if isinstance(host, str) else ",".join(host)
    return f"{hosts}:{url.port or 5432}/{url.database}"


def reason(error: OperationalError) -> str:
    """Give what libpq said of the last address that it tried, without the address and without its advice."""
    lines = [
        line for line in str(error.orig).splitlines() if line.strip() and not line.startswith(("\t", " "))
    ]
    words = lines[-1].rpartition("failed: ")[2] if lines else "no reason given"
    return " ".join(words.split()).removesuffix(".")


def asked_for_password(error: OperationalError) -> bool:
    """Whether the server that this connection failed at had asked for a password, and so is there."""
    driver_error = error.orig
    if not isinstance(driver_error, DriverError) or driver_error.pgconn is None:
        return False
    return driver_error.pgconn.used_password


def can_connect(url: URL) -> bool:
    engine = connect(url)
    try:
        with engine.connect():
            return True
    except OperationalError:
        return False
    finally:
        engine.dispose()
