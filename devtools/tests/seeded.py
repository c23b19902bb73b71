"""What the tests of seeding share: how a database is filled, and all that is told of it."""

import time
from hashlib import sha256
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from backend.errors import UserError
from backend.migrations import catalog
from devtools.seeding import __main__ as script
from devtools.seeding.loading import TABLES

COUNTS = {table.name: table.count for table in TABLES}


def fill(engine: Engine, *arguments: str) -> None:
    """Seed by the script with the name typed, for a container's host is not always this machine's."""
    script.main(["--yes-seed", str(engine.url.database), *arguments])


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        script.main(list(arguments))
    return str(caught.value)


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def ask(engine: Engine, query: str) -> Any:  # noqa: ANN401  whatever is asked for
    with engine.connect() as connection:
        return connection.scalar(text(query))


def counts(engine: Engine) -> dict[str, int]:
    return {name: ask(engine, f"SELECT count(*) FROM {name}") for name in COUNTS}  # noqa: S608  our own names


def digest(engine: Engine) -> dict[str, str]:
    """Digest each table's rows, to the byte and in the order in which they lie there."""
    found = {}
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        for name in COUNTS:
            made = sha256()
            with driver.cursor().copy(f"COPY {name} TO STDOUT") as copy:
                for data in copy:
                    made.update(data)
            found[name] = made.hexdigest()
    return found


def state(engine: Engine) -> tuple[object, ...]:
    """Tell all that a seeding may change: rows, what the next ids are, the schema to the last word."""
    with engine.connect() as connection:
        schema = catalog.read(connection)
        ids = connection.execute(
            text("SELECT sequencename, last_value FROM pg_sequences ORDER BY sequencename")
        ).all()
    return digest(engine), ids, schema


def wait_for(engine: Engine, query: str, expected: object) -> None:
    deadline = time.monotonic() + 30
    while ask(engine, query) != expected:
        assert time.monotonic() < deadline, query
        time.sleep(0.02)
