"""Compare models, migrations and your database: `nox -s db_check`. Nothing is changed.

The migrations are run on a temporary server.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

import freshpg
from backend import migrations
from backend.config import load_settings
from backend.database import SchemaState, connect, init_db, schema_state
from backend.errors import UserError
from backend.migrations.drift import Difference, by_table, differences
from backend.scripts.terminal import say
from backend.startup import describe, plain_refusals, sqlstate, wait_for_database
from devtools.database import find_own
from devtools.migrations.statements import alternatives
from devtools.terminal import enter
from freshpg.command import tell

INSUFFICIENT_PRIVILEGE, READ_ONLY = "42501", "25006"
REVISION = '`nox -s db_revision -- -m "..."`'


@dataclass(frozen=True)
class Comparison:
    """How a schema compares with the models."""

    of: str
    """What was compared, as a sentence's subject: `the migrations`, `the database ...`."""
    state: SchemaState
    differences: list[Difference]
    elsewhere: tuple[Difference, ...] = ()
    """Those of the differences that the migrations have too, and that a migration therefore puts right."""

    @property
    def agrees(self) -> bool:
        return self.state.is_at_head and not self.differences

    @property
    def is_of_migrations(self) -> bool:
        return self.of == "the migrations"

    def as_data(self) -> dict[str, Any]:
        return {
            "of": self.of,
            "revision": self.state.current,
            "head": self.state.head,
            "agrees": self.agrees,
            "differences": [
                {
                    "table": difference.thing.table or None,
                    "kind": difference.thing.kind,
                    "name": difference.thing.name,
                    "what": difference.what,
                    "expected": difference.expected,
                    "actual": difference.actual,
                    "sentence": difference.tell(self.side),
                }
                for difference in self.differences
            ],
        }

    @property
    def side(self) -> str:
        return "the migrations" if self.is_of_migrations else "the database"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="db_check",
        description="Show what differs between the models and what the migrations make, and between the models and "
        "your database: the configured one, Compose's, or the embedded one. Nothing is changed. The exit code is 1 if "
        "anything differs.",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--ephemeral", action="store_true", help="compare the migrations only")
    options = parser.parse_args(arguments)
    settings = load_settings()
    migrations.head()  # two heads are reported before a server is started
    choice = freshpg.choose("auto")
    tell(f"Migrations: on a temporary server. {choice.announcement}.")
    with (
        choice.start() as server,
        plain_refusals_of(freshpg.ensure_database(server.url, "migrated")) as engine,
    ):
        init_db(engine)
        found = [compare(engine, "the migrations")]
    if not options.ephemeral:
        with find_own(settings) as own:
            if own is None:
                tell("Database: no existing database found; compared the migrations only.")
            else:
                with plain_refusals_of(own.url) as engine:
                    wait_for_database(engine, settings.database_wait_seconds, tell=tell)
                    name = f"the database {describe(engine.url)}"
                    found.append(compare(engine, name, found[0].differences))
    return report(found, as_json=options.json)


@contextmanager
def plain_refusals_of(url: str) -> Iterator[Engine]:
    """Lend an engine. Raises UserError if PostgreSQL refuses what is done with it, or SQLAlchemy the models."""
    engine = connect(url)
    try:
        with plain_refusals(engine.url):
            yield engine
    except SQLAlchemyError as error:
        raise UserError(f"The models cannot be created: {str(error).splitlines()[0]}") from error
    finally:
        engine.dispose()


def compare(engine: Engine, of: str, elsewhere: Sequence[Difference] = ()) -> Comparison:
    """Compare a database with the models. Raises UserError if its role or a standby may not."""
    try:
        with engine.connect() as connection:
            state = schema_state(connection)
            found = differences(connection) if state.current is not None else []
    except DBAPIError as error:
        if sqlstate(error) not in (INSUFFICIENT_PRIVILEGE, READ_ONLY):
            raise
        words = str(error.orig).partition("\n")[0]
        raise UserError(
            f"Cannot compare {of} with the models: {words}.\n"
            "The comparison creates a schema and rolls it back: compare the primary server, by a role with the "
            "privilege CREATE on the database."
        ) from error
    return Comparison(of, state, found, tuple(each for each in found if each in elsewhere))


def report(found: Sequence[Comparison], *, as_json: bool) -> int:
    """Print what was found, and return the exit code."""
    agree = all(comparison.agrees for comparison in found)
    if as_json:
        print(json.dumps({"agree": agree, "compared": [each.as_data() for each in found]}, indent=2))
    else:
        for comparison in found:
            for line in lines(comparison):
                say(line)
    return 0 if agree else 1


def lines(comparison: Comparison) -> Iterator[str]:
    """Say what was found, table by table, each with what to do about it."""
    subject, state = comparison.of[0].upper() + comparison.of[1:], comparison.state
    if state.current is None:
        yield f"{subject} has no schema yet: `nox -s db_init` creates it."
        return
    if state.is_ahead:
        yield (
            f"{subject} is at revision {state.current}, which this code does not know: check out the code that made "
            "it, or `nox -s db_reset`, which drops every row."
        )
    elif not state.is_at_head:
        behind = migrations.behind(state.current)
        count = f"{behind} {'migration' if behind == 1 else 'migrations'}"
        yield f"{subject} is {count} behind: `nox -s db_init` runs what is missing. Until then:"
    if not comparison.differences:
        yield f"{subject} {'agree' if comparison.is_of_migrations else 'agrees'} with the models."
        return
    places = len(comparison.differences)
    yield f"{subject} and the models differ in {places} {'place' if places == 1 else 'places'}:"
    for table, group in by_table(comparison.differences):
        yield f"  {table or 'outside the tables'}"
        for difference in group:
            yield f"    {difference.tell(comparison.side)}: {cure(difference, comparison)}."


def cure(difference: Difference, comparison: Comparison) -> str:
    """Say what puts the difference right; never a statement that drops rows."""
    verb = "drop" if difference.what == "extra" else "draft"
    if comparison.is_of_migrations:
        return f"{REVISION} to {verb} it"
    if not comparison.state.is_at_head:
        return "`nox -s db_init` first" if not comparison.state.is_ahead else "see above"
    if difference in comparison.elsewhere:
        return f"{REVISION} to {verb} it, then `nox -s db_init`"
    if difference.what == "extra" and difference.thing.kind in (
        "table",
        "column",
        "schema",
        "materialized view",
    ):
        return (
            "if it is not yours, list it in `ignored_tables` of the models; if it is, add it there or drop it"
        )
    ways = alternatives(difference, {difference.thing: difference.expected})
    by_hand = "; ".join(" ".join(statement.split()) for statement in ways[0]) if ways else ""
    if not by_hand or difference.thing.kind in ("function", "procedure"):  # as long as its body
        return "put it right by hand in `nox -s db_shell`"
    return f"by hand in `nox -s db_shell`: `{by_hand}`"


if __name__ == "__main__":
    enter(main)
