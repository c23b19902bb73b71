"""Compare the configured database with the models; `nox -s db_check` compares the migrations too."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from backend.scripts.bootstrap import use_environment

    use_environment()

from sqlalchemy import Engine

from backend import migrations
from backend.config import load_settings
from backend.database import SchemaState, schema_state
from backend.migrations.drift import Difference, by_table
from backend.scripts.terminal import engine_for, enter, say
from backend.startup import compare_with_models, describe, wait_for_database
from devtools.migrations.statements import statements

REVISION = 'nox -s db_revision -- -m "..."'


@dataclass(frozen=True)
class Comparison:
    """What a schema was found to be, beside the models."""

    of: str
    """What was compared, as a sentence's subject: `the migrations`, `the database ...`."""
    state: SchemaState
    differences: list[Difference]
    elsewhere: tuple[Difference, ...] = ()
    """Those of the differences that the migrations have too, and that a migration therefore puts right."""

    @property
    def agrees(self) -> bool:
        return self.state.is_at_head and not self.differences


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="check_db",
        description="Tell what differs between the configured database and the models, and what puts it right. "
        "Nothing is changed. The exit code is 1 where anything differs.",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    options = parser.parse_args(arguments)
    settings = load_settings()
    with engine_for(settings) as engine:
        wait_for_database(
            engine, settings.database_wait_seconds, tell=lambda line: print(line, file=sys.stderr)
        )
        found = check_database(engine)
    report([found], as_json=options.json)


def check_database(engine: Engine, elsewhere: Sequence[Difference] = ()) -> Comparison:
    """Compare a database with the models. Raises UserError where its role may not."""
    with engine.connect() as connection:
        state = schema_state(connection)
    found = compare_with_models(engine) if state.current is not None else []
    return Comparison(
        f"the database {describe(engine.url)}",
        state,
        found,
        tuple(difference for difference in found if difference in elsewhere),
    )


def report(found: Sequence[Comparison], *, as_json: bool) -> None:
    """Print what was found; SystemExit with code 1 where anything differs."""
    agree = all(comparison.agrees for comparison in found)
    if as_json:
        print(json.dumps({"agree": agree, "compared": [as_data(each) for each in found]}, indent=2))
    else:
        for comparison in found:
            for line in lines(comparison):
                say(line)
    if not agree:
        raise SystemExit(1)


def as_data(comparison: Comparison) -> dict[str, Any]:
    return {
        "of": comparison.of,
        "revision": comparison.state.current,
        "head": comparison.state.head,
        "agrees": comparison.agrees,
        "differences": [
            {
                "table": difference.thing.table or None,
                "kind": difference.thing.kind,
                "name": difference.thing.name,
                "what": difference.what,
                "expected": difference.expected,
                "actual": difference.actual,
                "sentence": difference.tell(side_of(comparison)),
                "by_hand": statements(difference),
            }
            for difference in comparison.differences
        ],
    }


def lines(comparison: Comparison) -> Iterator[str]:
    """Say what was found, table by table, each with what a person does about it."""
    subject, state = comparison.of[0].upper() + comparison.of[1:], comparison.state
    yield from revision_lines(subject, state)
    if state.current is None:
        return
    if not comparison.differences:
        yield f"{subject} {'are' if is_of_migrations(comparison) else 'is'} as the models say."
        return
    count = len(comparison.differences)
    yield f"{subject} and the models differ in {count} {'place' if count == 1 else 'places'}:"
    for table, group in by_table(comparison.differences):
        yield f"  {table or 'beside the tables'}"
        for difference in group:
            yield f"    {difference.tell(side_of(comparison))}: {cure(difference, comparison)}"
    if not is_of_migrations(comparison) and state.is_at_head:
        yield "By hand means in `nox -s db_shell`; `nox -s db_reset` drops every row."


def revision_lines(subject: str, state: SchemaState) -> Iterator[str]:
    if state.current is None:
        yield f"{subject} has no schema yet: `nox -s db_init` makes it."
    elif state.is_ahead:
        yield (
            f"{subject} is at revision {state.current}, which this code does not know: check out the code that made "
            "it, or `nox -s db_reset`."
        )
    elif not state.is_at_head:
        behind = migrations.behind(state.current)
        yield (
            f"{subject} is {behind} {'migration' if behind == 1 else 'migrations'} behind: `nox -s db_init` brings it "
            "along. As it is now:"
        )


def cure(difference: Difference, comparison: Comparison) -> str:
    if is_of_migrations(comparison):
        return f"`{REVISION}` {'to drop it' if difference.what == 'extra' else 'to draft it'}"
    if difference in comparison.elsewhere:
        verb = "to drop it" if difference.what == "extra" else "to draft it"
        return f"`{REVISION}` {verb} and `nox -s db_init`, or `nox -s db_reset`"
    if not comparison.state.is_at_head:
        return (
            "`nox -s db_init`, or `nox -s db_reset`" if not comparison.state.is_ahead else "`nox -s db_reset`"
        )
    by_hand = "; ".join(" ".join(statement.split()) for statement in statements(difference))
    if difference.thing.kind in ("function", "procedure") and difference.what != "extra":
        by_hand = ""  # as long as its body
    return f"by hand `{by_hand}`, or `nox -s db_reset`" if by_hand else "`nox -s db_reset`"


def is_of_migrations(comparison: Comparison) -> bool:
    return comparison.of == "the migrations"


def side_of(comparison: Comparison) -> str:
    return "the migrations" if is_of_migrations(comparison) else "the database"


if __name__ == "__main__":
    enter(main)
