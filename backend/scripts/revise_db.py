"""Draft a migration from the models: `nox -s db_revision -- -m "add x"`."""

import argparse
from collections.abc import Sequence

from backend import migrations
from backend.config import ROOT, load_settings
from backend.scripts.terminal import engine_for, enter, say
from backend.startup import start_database


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="revise_db",
        description="Write a migration that brings the schema, which is brought to head first, to what the models say. "
        "It is a draft: read it, for Alembic does not see renames, CHECKs and triggers.",
    )
    parser.add_argument(
        "-m", "--message", required=True, help="what it does, in the imperative: `add x to y`"
    )
    options = parser.parse_args(arguments)
    settings = load_settings()
    with engine_for(settings) as engine:
        start_database(engine, settings)
        with engine.begin() as connection:
            if not migrations.compare(connection):
                say("The models are what the migrations make: there is nothing to write.")
                return
            for path in migrations.revise(connection, options.message):
                say(f"Wrote {path.relative_to(ROOT)}: read it and complete it, then run `nox -s tests`.")


if __name__ == "__main__":
    enter(main)
