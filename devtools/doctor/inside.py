"""Run in the project's environment: tell, a line of JSON for each finding, of the settings and of the database.

Nothing is started, and nothing is changed: what the comparison makes in the database is rolled back.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import URL, Connection, Engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

import freshpg
from backend import migrations
from backend.config import Settings, load_settings
from backend.database import SchemaState, connect, schema_state, utc_faults
from backend.errors import UserError
from backend.startup import compare_with_models, describe, first_line, sqlstate, wait_for_database
from devtools.database import DIRECTORY, named
from devtools.doctor.clock import told
from devtools.doctor.finding import Finding, ok, unknown, warning, wrong

SETTINGS = "settings/checked"
NAMES = ("database/server", "database/schema", "database/drift", "database/utc", "database/clock")
PATIENCE_SECONDS, LOCK_SECONDS = 2.0, 2.0
SHOWN = 3
_UTC = re.compile(r"(Etc/)?(UTC|UCT|GMT|GMT0|GMT[+-]0|Universal|Zulu|Greenwich)", re.IGNORECASE)
_QUERY_CANCELED, _LOCK_NOT_AVAILABLE = "57014", "55P03"
_SESSION = """
    SELECT setting, source, quote_ident(current_user), quote_ident(current_database())
    FROM pg_settings WHERE name = 'TimeZone'
"""
_SOURCES = {
    "database": "ALTER DATABASE {database} SET timezone = 'UTC'",
    "user": "ALTER ROLE {user} SET timezone = 'UTC'",
    "database user": "ALTER ROLE {user} IN DATABASE {database} SET timezone = 'UTC'",
}


def main() -> None:
    for finding in examine():
        # The doctor reads them line by line, from the other end of a pipe.
        print(json.dumps(finding.as_data()), flush=True)


def examine() -> Iterator[Finding]:
    try:
        settings = load_settings()
    except UserError as error:
        for line in str(error).splitlines():
            mistake, _, cure = line.partition(". Set it ")
            yield wrong(
                SETTINGS, f"{mistake.rstrip('.')}.", f"Set it {cure}" if cure else "Set what is named."
            )
        for name in NAMES:
            yield unknown(name, "The settings cannot be read.")
        return
    yield ok(SETTINGS, f"APP_ENV is {settings.app_env.value}, and every value can be read.")
    yield from examine_database(settings)


def examine_database(settings: Settings) -> Iterator[Finding]:
    found = find(settings)
    if found is None:
        kept = f"{os.path.relpath(DIRECTORY)} has one that does not run, and " if DIRECTORY.exists() else ""
        yield unknown(
            NAMES[0],
            f"No database answers: {kept}none is configured, none is on DB_PORT {settings.db_port}.",
            "`docker compose up` or `nox -s dev` starts one; `nox -s db_check` looks at one that does not run.",
        )
        for name in NAMES[1:]:
            yield unknown(name, "There is no database to ask.")
        return
    url, why = found
    engine = connect(url)
    event.listen(engine, "begin", _limit)
    try:
        yield from _examine_engine(engine, why)
    finally:
        engine.dispose()


def _examine_engine(engine: Engine, why: str) -> Iterator[Finding]:
    try:
        wait_for_database(engine, PATIENCE_SECONDS, tell=lambda _: None)
        yield ok(NAMES[0], f"PostgreSQL {_version(engine)} answers at {describe(engine.url)}, {why}.")
    except UserError as error:
        what, _, cure = str(error).partition("\n")
        yield wrong(NAMES[0], what, " ".join(cure.split()))
        for name in NAMES[1:]:
            yield unknown(name, "The database does not answer.")
        return
    checks: list[Callable[[Engine], Iterator[Finding]]] = [_schema, _drift, _utc, clock]
    for name, check in zip(NAMES[1:], checks, strict=True):
        with_refusals = list[Finding]()
        with _refused(name, with_refusals):
            with_refusals += check(engine)
        yield from with_refusals


def find(settings: Settings) -> tuple[URL, str] | None:
    """Return the developer's own database, if it runs, and why it is taken; nothing is started for it."""
    if (why := named(settings)) is not None:
        return settings.url, why
    if DIRECTORY.exists() and (server := freshpg.running(DIRECTORY)) is not None:
        url = freshpg.sqlalchemy_url(freshpg.database_url(server.url, settings.postgres_db))
        return make_url(url), f"embedded, of {os.path.relpath(DIRECTORY)}"
    return None


def _limit(connection: Connection) -> None:
    # In each transaction anew: behind a pool that hands out transactions, a session's setting would be somebody else's.
    connection.exec_driver_sql(
        f"SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"
    )


@contextmanager
def _refused(name: str, found: list[Finding]) -> Iterator[None]:
    """Turn what the database refuses into a finding."""
    try:
        yield
    except UserError as error:
        what, _, cure = str(error).partition("\n")
        found.append(unknown(name, what, cure))
    except DBAPIError as error:
        if sqlstate(error) in (_QUERY_CANCELED, _LOCK_NOT_AVAILABLE):
            cure = "`nox -s db_shell -- -c 'TABLE pg_stat_activity'` shows who it is."
            found.append(unknown(name, "Another connection holds a lock on what is to be looked at.", cure))
        else:
            found.append(unknown(name, f"The database refused: {first_line(error)}."))
    except psycopg.Error as error:
        found.append(unknown(name, f"The database refused a connection of its own: {type(error).__name__}."))


def _version(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.scalar(text("SHOW server_version"))).partition(" ")[0]


def _schema(engine: Engine) -> Iterator[Finding]:
    name = NAMES[1]
    with engine.connect() as connection:
        state: SchemaState = schema_state(connection)
    if state.current is None:
        yield warning(name, "The database has no schema yet.", "`nox -s db_init`.")
    elif state.is_ahead:
        yield wrong(
            name,
            f"The schema is at revision {state.current}, which this code does not know.",
            "Check out the code that made it, or `nox -s db_reset`, which drops every row.",
        )
    elif not state.is_at_head:
        behind = migrations.behind(state.current)
        yield wrong(
            name,
            f"The schema is {behind} {'migration' if behind == 1 else 'migrations'} behind, at {state.current}.",
            "`nox -s db_init`, or the next start.",
        )
    else:
        yield ok(name, f"The schema is at head, {state.head}.")


def _drift(engine: Engine) -> Iterator[Finding]:
    name = NAMES[2]
    with engine.connect() as connection:
        if schema_state(connection).current is None:
            yield unknown(name, "There is no schema to compare with the models.")
            return
    found = compare_with_models(engine)
    if not found:
        yield ok(name, "The database is as the models say.")
        return
    places = [
        each.title if each.is_whole else f"{each.title} of {each.thing.table}" for each in found[:SHOWN]
    ]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    yield wrong(
        name,
        f"The database differs from the models: {', '.join(places)}{more}.",
        "`nox -s db_check` says how, and what puts each right.",
    )


def _utc(engine: Engine) -> Iterator[Finding]:
    name = NAMES[3]
    with engine.connect() as connection:
        faults = utc_faults(connection)
    for fault in faults[:SHOWN]:
        yield wrong(name, fault, "`nox -s utc_check` shows what it does to times.")
    # As any other client's session begins: ours are pinned.
    parameters = engine.dialect.create_connect_args(engine.url)[1]
    with psycopg.connect(**parameters) as session:
        zone, source, user, database = session.execute(_SESSION).fetchone() or ("UTC", "", "", "")
    if not _UTC.fullmatch(zone):
        by_client = source in ("client", "environment variable")
        statement = _SOURCES.get(source, "ALTER SYSTEM SET timezone = 'UTC'; SELECT pg_reload_conf()")
        yield warning(
            name,
            f"Sessions begin in {zone}. The API's are held at UTC; psql and others show {zone}'s time.",
            "Unset PGTZ, or take `options` out of DATABASE_URL."
            if by_client
            else f"In `nox -s db_shell`: {statement.format(user=user, database=database)}",
        )
    elif not faults:
        yield ok(
            name, "Sessions are in UTC, and every column keeps instants; `nox -s utc_check` proves the rest."
        )


def clock(engine: Engine, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    with engine.connect() as connection:
        asked = now()
        theirs = connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())::float8"))
        answered = now()
    yield told(NAMES[4], "The database's clock", float(theirs or 0), asked, answered)


if __name__ == "__main__":
    main()
