"""Prove on the configured database that no layer stores or shows a wrong time: `nox -s utc_check`."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from fastapi import FastAPI
from rich.console import Console
from sqlalchemy import Engine

from backend.config import Settings, load_settings
from backend.main import create_app
from backend.models.models import Base
from backend.scripts.terminal import engine_for, say
from backend.startup import describe, wait_for_database
from devtools.terminal import enter
from devtools.utc_check import ZONES
from devtools.utc_check.our_tables import subjects
from devtools.utc_check.page import print_report
from devtools.utc_check.report import Report
from devtools.utc_check.verify import verify


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    settings = load_settings()
    # A schema is removed on the way out, which a plain SIGTERM would not let happen.
    signal.signal(signal.SIGTERM, _exit)
    with engine_for(settings) as engine:
        wait_for_database(engine, settings.database_wait_seconds, tell=say)
        report = prove(engine, settings, options)
    if options.json:
        sys.stdout.write(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n")
    else:
        print_report(Console(soft_wrap=False, highlight=False), report, describe(engine.url))
    if not report.is_proved:
        sys.exit(1)


def prove(engine: Engine, settings: Settings, options: argparse.Namespace) -> Report:
    # The application is called from within this process alone, so no token guards it.
    open_settings = settings.model_copy(update={"api_token": None})

    def make(twin: Engine) -> FastAPI:
        return create_app(open_settings, engine=twin)

    return verify(
        engine, Base, make, subjects,
        zones=options.zone or ZONES, seed=options.seed, only=options.only, owns_database=options.own_database,
    )  # fmt: skip


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="check_utc",
        description="Prove that no layer stores or shows a wrong time. The project's tables are made in a schema of "
        "their own, the application is driven there, and the schema is removed: no row and no setting of yours is "
        "touched. Exit code 1 where something is wrong.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--seed", type=int, help="the seed of an earlier report, for the same random instants"
    )
    parser.add_argument("--only", metavar="PATH", help="one path, as reported: copy/orm, trigger, '*/http'")
    parser.add_argument(
        "--zone", action="append", metavar="ZONE", help=f"move sessions there (by default {', '.join(ZONES)})"
    )
    parser.add_argument(
        "--own-database",
        action="store_true",
        help="the database was made for this: move sessions by its own settings too",
    )
    return parser.parse_args(arguments)


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    enter(main)
