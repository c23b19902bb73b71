"""Bring the database's schema to head: `nox -s db_init`, or `python3 backend/scripts/init_db.py`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # the script was run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from backend.scripts.run_by_path import use_devtools, use_environment

    use_environment()
    use_devtools("init")

from backend.config import load_settings
from backend.scripts.console import engine_for, enter, say
from backend.startup import describe, start_database


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(
        prog="nox -s db_init --",
        description="Bring the schema of the configured database to head, by Alembic's migrations.",
    ).parse_args(arguments)
    settings = load_settings()
    with engine_for(settings.database_url) as engine:
        before = start_database(engine, settings, report=say)
    name = describe(settings.database_url)
    if before.is_at_head:
        say(f"Database {name} is already at {before.head}: nothing to do.")
    elif not before.is_ahead:
        say(f"Database {name} initialised: from {before.current or 'nothing'} to {before.head}.")


if __name__ == "__main__":
    enter(main)
