"""Prove on the configured database that no layer stores or shows a wrong time: `nox -s utc_check`."""

import argparse
import json
from collections.abc import Sequence

import psycopg
from rich.console import Console

from backend.config import AppEnv, load_settings
from backend.errors import UserError
from backend.main import create_app
from backend.scripts.console import engine_for, say
from backend.startup import describe, wait_for_database
from devtools.utc_check.proof_report import print_report
from devtools.utc_check.verification import verify


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    settings = load_settings()
    # The application needs no token, because only this process calls it. In a test, its start does not look for drift.
    open_settings = settings.model_copy(update={"api_token": None, "app_env": AppEnv.TEST})
    with engine_for(settings.database_url) as engine:
        wait_for_database(engine, settings.database_wait_seconds, report=say)
        try:
            report = verify(
                engine.url,
                lambda engine: create_app(open_settings, engine=engine),
                seed=options.seed,
                only=options.only,
            )
        except psycopg.Error as error:
            words = str(error).partition("\n")[0]
            raise UserError(
                f"Cannot run the proof on {describe(engine.url)}: {words}.\n"
                "It needs the primary server, and a role with the privilege CREATE on the database."
            ) from error
    if options.json:
        print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        print_report(Console(highlight=False), report, describe(engine.url))
    return 0 if report.is_proved else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nox -s utc_check --",
        description="Prove that no layer stores or shows a wrong time. The project's tables are created in a separate "
        "schema, the application runs there, and the schema is dropped: no row and no setting of your database is "
        "changed. The exit code is 1 if something is wrong.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--seed", type=int, metavar="N", help="repeat the random values of a report")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATH",
        help="limit the proof to a path of the report, such as copy/orm or '*/http'; may be repeated",
    )
    return parser.parse_args(arguments)
