"""Compare models, migrations and your database: `nox -s db_check`. It changes nothing.

It runs the migrations on a temporary server.
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from operator import attrgetter

from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from backend import migrations
from backend.config import load_settings
from backend.database import SchemaState, init_db, schema_state
from backend.errors import UserError
from backend.migrations.drift import Difference, differences
from backend.scripts.console import engine_for, say
from backend.startup import describe, wait_for_database
from devtools.command_line import enter, note
from devtools.database import find_own, temporary


@dataclass(frozen=True)
class Comparison:
    """The comparison of a schema with the models."""

    of: str
    """The compared schema, as the subject of a sentence: `the migrations`, `the database ...`."""
    state: SchemaState
    differences: list[Difference]
    in_migrations: Sequence[Difference] = ()
    """The differences that the migrations have too, so that a new migration is needed."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s db_check --",
        description="Show what differs between the models and the migrations, and between the models and your "
        "database: the configured one, Compose's, or the embedded one. If anything differs, the exit code is 1. "
        "Nothing is changed, but the role must be allowed to create a schema, which is rolled back.",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--ephemeral", action="store_true", help="compare the migrations only")
    options = parser.parse_args(arguments)
    settings = load_settings()
    migrations.head()  # two heads are reported before a server is started
    with migrated_engine("Migrations: on a temporary server") as engine:
        found = [compare(engine, "the migrations")]
    if not options.ephemeral:
        with find_own(settings) as own:
            if not own:
                note("Database: no existing database found; compared the migrations only.")
            else:
                with engine_with_errors_reported(own) as engine:
                    wait_for_database(engine, settings.database_wait_seconds, report=note)
                    found.append(
                        compare(engine, f"the database {describe(engine.url)}", found[0].differences)
                    )
    agree = all(each.state.is_at_head and not each.differences for each in found)
    if options.json:
        print(json.dumps({"agree": agree, "compared": list(map(asdict, found))}, indent=2))
    else:
        for line in itertools.chain.from_iterable(map(lines, found)):
            say(line)
    return 0 if agree else 1


@contextmanager
def migrated_engine(reason: str) -> Iterator[Engine]:
    """Yield an engine on a database at head, on a temporary server, which is announced with the reason."""
    with temporary(reason, "migrated") as url, engine_with_errors_reported(url) as engine:
        init_db(engine)
        yield engine


@contextmanager
def engine_with_errors_reported(url: str) -> Iterator[Engine]:
    """Yield an engine. Raises UserError if PostgreSQL refuses a statement, or SQLAlchemy the models."""
    try:
        with engine_for(url) as engine:
            yield engine
    except SQLAlchemyError as error:
        raise UserError(f"The models cannot be created: {str(error).splitlines()[0]}") from error


def compare(engine: Engine, of: str, in_migrations: Sequence[Difference] = ()) -> Comparison:
    """Compare a database with the models. Raises UserError if the role or a standby does not allow that."""
    try:
        with engine.connect() as connection:
            state = schema_state(connection)
            found = differences(connection) if state.current is not None else []
    except DBAPIError as error:
        if not isinstance(error.orig, InsufficientPrivilege | ReadOnlySqlTransaction):
            raise
        words = str(error.orig).partition("\n")[0]
        raise UserError(
            f"Cannot compare {of} with the models: {words}.\n"
            "The comparison creates a schema and rolls it back: use the primary server, and a role with the privilege "
            "CREATE on the database."
        ) from error
    return Comparison(of, state, found, in_migrations)


def lines(comparison: Comparison) -> Iterator[str]:
    """Yield the findings table by table, each with its cure."""
    subject, state = comparison.of[0].upper() + comparison.of[1:], comparison.state
    if state.current is None:
        yield f"{subject} has no schema yet: `nox -s db_init` creates it."
        return
    if state.is_ahead:
        yield (
            f"{subject} is at revision {state.current}, which this code does not know: check out the code that "
            "created it, or run `nox -s db_reset`, which drops every row."
        )
    elif not state.is_at_head:
        yield f"{subject} is behind, at revision {state.current}: `nox -s db_init` brings it to {state.head}."
    if not (count_of := len(comparison.differences)):
        yield f"{subject} {'agree' if comparison.of == 'the migrations' else 'agrees'} with the models."
        return
    yield f"{subject} and the models differ in {count_of} {'place' if count_of == 1 else 'places'}:"
    side = "the migrations" if comparison.of == "the migrations" else "the database"
    for table, group in itertools.groupby(comparison.differences, attrgetter("thing.table")):
        yield f"  {table or 'outside the tables'}"
        yield from (f"    {each.describe(side)}: {cure(each, comparison)}." for each in group)


def cure(difference: Difference, comparison: Comparison) -> str:
    """Say what resolves the difference."""
    is_extra = difference.what == "extra"
    draft = f'`nox -s db_revision -- -m "..."` to {"drop" if is_extra else "draft"} it'
    if comparison.of == "the migrations":
        return draft
    if not comparison.state.is_at_head:
        return "see above" if comparison.state.is_ahead else "`nox -s db_init` first"
    if difference in comparison.in_migrations:
        return f"{draft}, then `nox -s db_init`"
    if is_extra and difference.thing.kind in ("table", "column", "schema", "materialized view"):
        return "add it to the models or drop it, or, if it is not yours, list it in `ignored_tables` of the models"
    return "correct it by hand in `nox -s db_shell`; `-- --json` shows its definition"


if __name__ == "__main__":
    enter(main)
