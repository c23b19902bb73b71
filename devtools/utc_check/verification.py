"""Run the proof."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from random import Random
from unittest.mock import patch

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import URL, Engine, create_engine

from backend.database import connect
from devtools.utc_check.cases import COMMON_VALUES, ZONES, zone_values
from devtools.utc_check.checks import check_columns, check_ranges, check_refusals, check_sessions
from devtools.utc_check.proof_report import Report
from devtools.utc_check.round_trips import cross
from devtools.utc_check.sandbox_schema import (
    Target,
    confined,
    make_subjects,
    plain_connection,
    sandbox_schema,
)


def verify(
    url: URL,
    make_app: Callable[[Engine], FastAPI],
    *,
    zones: Sequence[str] = ZONES,
    seed: int | None = None,
    only: Sequence[str] = (),
) -> Report:
    """Prove on this database that no layer stores or shows a wrong time. Failures are reported, not raised.

    The application that `make_app` returns creates its tables in a schema that is dropped at the end; nothing else in
    the database is changed. New sessions start in each of `zones` in turn, through libpq's environment variables. A
    `seed` repeats the random values of an earlier report; `only` limits the proof to paths.

    Raises psycopg's and SQLAlchemy's errors if the role may not create a schema, and the application's error if it
    does not start.
    """
    began = time.perf_counter()
    seed = Random().randrange(2**32) if seed is None else seed  # noqa: S311 - it has to be repeatable
    report = Report(seed, tuple(zones), tuple(only), _describe_server(url))
    with sandbox_schema(url) as schema:
        for zone in zones:
            with patch.dict(os.environ, PGTZ=zone, PGDATESTYLE="SQL, DMY"), ExitStack() as stack:
                app = make_app(stack.enter_context(confined(connect(url), schema)))
                # psycopg reads timestamps in the ISO style only.
                unpinned = stack.enter_context(confined(create_engine(url), schema, style="ISO"))
                plain = stack.enter_context(plain_connection(url))
                client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
                target = Target(schema, zone, app.state.engine, unpinned, plain, client)
                with report.continued("session/new"), confined(connect(url), schema) as new:
                    check_sessions(target, new, report)
                subjects, values = make_subjects(target), zone_values(zone, seed)
                if zone == zones[0]:
                    # Checks that do not depend on the zone run only in the first one.
                    values = COMMON_VALUES + values
                    for subject in subjects:
                        with report.continued("range", subject.table.name):
                            check_ranges(subject, report)
                    with report.continued("refused"):
                        check_refusals(subjects[-1], report)
                    with report.continued("lint"), target.engine.begin() as connection:
                        check_columns(connection, schema, report)
                for subject in subjects:
                    with report.continued("plain/stored", subject.table.name):
                        cross(subject, values, report)
    report.seconds = time.perf_counter() - began
    return report


def _describe_server(url: URL) -> str:
    with plain_connection(url) as connection:
        names = ("server_version", "TimeZone", "DateStyle")
        version, zone, style = (connection.info.parameter_status(name) or "" for name in names)
        return f"PostgreSQL {version.partition(' ')[0]}, which starts sessions in {zone}, {style}"
