"""Compare models, migrations and the database that the ladder finds: `nox -s db_check`. Nothing is changed.

The migrations are run on a server that comes and goes.
"""

import argparse
from collections.abc import Sequence

import freshpg
from backend.config import load_settings
from backend.database import connect, init_db, schema_state
from backend.migrations.drift import differences
from backend.startup import plain_refusals, wait_for_database
from devtools.database import find_own
from devtools.migrations.check_db import Comparison, check_database, report
from devtools.terminal import enter
from freshpg.command import tell


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="db_check",
        description="Tell what differs between the models and what the migrations make, and between the models and the "
        "database: the one configured, Compose's, or the embedded one. Nothing is changed. The exit code is 1 where "
        "anything differs.",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--ephemeral", action="store_true", help="leave your database out of it")
    options = parser.parse_args(arguments)
    settings = load_settings()
    choice = freshpg.choose("auto")
    tell(f"Migrations: on an ephemeral server. {choice.announcement}.")
    with choice.start() as server:
        found = [check_migrations(freshpg.ensure_database(server.url, "migrated"))]
    if not options.ephemeral:
        with find_own(settings) as database:
            if database is None:
                tell("Database: none of yours is there, so the migrations alone were compared.")
            else:
                engine = connect(database.url)
                with plain_refusals(engine.url):
                    wait_for_database(engine, settings.database_wait_seconds, tell=tell)
                    found.append(check_database(engine, found[0].differences))
                engine.dispose()
    report(found, as_json=options.json)


def check_migrations(url: str) -> Comparison:
    """Run the migrations in this empty database, and compare what they make with the models."""
    engine = connect(url)
    try:
        with plain_refusals(engine.url):
            init_db(engine)
            with engine.connect() as connection:
                return Comparison("the migrations", schema_state(connection), differences(connection))
    finally:
        engine.dispose()


if __name__ == "__main__":
    enter(main)
