"""Drop everything in the database and create the schema: `nox -s db_reset`, or this file by its path."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # the script was run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from backend.scripts.run_by_path import use_devtools, use_environment

    use_environment()
    use_devtools("reset")

from backend.config import load_settings
from backend.database import reset_db
from backend.scripts.console import engine_for, enter, say
from backend.scripts.safety import DestructiveAction, refuse_production, refuse_unless_ours
from backend.startup import describe, wait_for_database


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="nox -s db_reset --",
        allow_abbrev=False,
        description="Drop everything in the configured database, known to the models or not, other schemas included, "
        "and create the schema again. Runs without confirmation only on a local or Compose database that is marked as "
        "development or test; for any other, you must type its name. Production is never reset.",
    )
    parser.add_argument("--yes-drop", metavar="NAME", help="name of the database, to confirm")
    options = parser.parse_args(arguments)
    settings = load_settings()
    refuse_production(settings, "a production database is never reset. Nothing was dropped.")
    action = DestructiveAction("drop", "db_reset", "--yes-drop", arguments)
    with engine_for(settings.database_url) as engine:
        wait_for_database(engine, settings.database_wait_seconds, report=say)
        refuse_unless_ours(engine, action, typed_name=options.yes_drop)
        dropped = reset_db(engine, environment=settings.app_env)
    for name in dropped:
        say(f"  dropped {name}")
    place = describe(settings.database_url)
    say(f"Database {place} reset: dropped {len(dropped)} objects and re-created the schema.")


if __name__ == "__main__":
    enter(main)
