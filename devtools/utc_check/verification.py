"""Run the proof."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from unittest.mock import patch

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import URL, Engine, create_engine, text

from backend.database import connect
from devtools.utc_check.cases import COMMON_VALUES, ZONES, zone_values
from devtools.utc_check.checks import check_columns, check_ranges, check_refusals, check_sessions
from devtools.utc_check.proof_report import Report
from devtools.utc_check.round_trips import FAULTS, cross, describe_error
from devtools.utc_check.sandbox_schema import confined, plain_connection, sandbox_schema
from devtools.utc_check.subjects import Subject, Target, make_subjects

_STYLES = ("SQL, DMY", "German", "Postgres, MDY")  # psycopg can read none of them


def verify(
    url: URL,
    make_app: Callable[[Engine], FastAPI],
    *,
    zones: Sequence[str] = ZONES,
    seed: int | None = None,
    only: Sequence[str] = (),
    alter: str | None = None,
) -> Report:
    """Prove on this database that no layer stores or shows a wrong time. Failures are reported, not raised.

    The application that `make_app` returns creates its tables in a schema that is dropped at the end; nothing else in
    the database is changed. New sessions start in each of `zones` in turn, through libpq's environment variables. A
    `seed` repeats the random values of an earlier report; `only` limits the proof to paths; `alter` is SQL with which
    tests break the schema.

    Raises psycopg's and SQLAlchemy's errors if the role may not create a schema, and the application's error if it
    does not start.
    """
    began = time.perf_counter()
    seed = Random().randrange(2**32) if seed is None else seed  # noqa: S311 - it has to be repeatable
    report = Report(seed, tuple(zones), tuple(only), _server(url))
    with sandbox_schema(url) as schema:
        for number, zone in enumerate(zones):
            variables = {"PGTZ": zone, "PGDATESTYLE": _STYLES[number % len(_STYLES)]}
            with patch.dict(os.environ, variables), ExitStack() as stack:
                app = make_app(stack.enter_context(confined(connect(url), schema)))
                target = _enter(stack, url, schema, zone, app)
                if alter and not number:
                    with target.engine.begin() as connection:
                        connection.execute(text(alter))
                with _reported(report, "session/new"), confined(connect(url), schema) as new:
                    check_sessions(target, new, report)
                subjects, values = make_subjects(target), zone_values(zone, seed)
                if not number:
                    # Checks that do not depend on the zone run only in the first one.
                    values = COMMON_VALUES + values
                    _check_once(subjects, report)
                for subject in subjects:
                    with _reported(report, f"stored/{subject.table.name}"):
                        cross(subject, values, report)
    report.seconds = time.perf_counter() - began
    return report


def _enter(stack: ExitStack, url: URL, schema: str, zone: str, app: FastAPI) -> Target:
    # psycopg reads timestamps in the ISO style only.
    unpinned = stack.enter_context(confined(create_engine(url), schema, style="ISO"))
    plain = stack.enter_context(plain_connection(url))
    client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
    return Target(schema, zone, app.state.engine, unpinned, plain, client)


def _check_once(subjects: list[Subject], report: Report) -> None:
    for subject in subjects:
        with _reported(report, f"range/{subject.table.name}"):
            check_ranges(subject, report)
    with _reported(report, f"refused/{subject.table.name}"):
        check_refusals(subject, report)
    with _reported(report, "lint/schema"), subject.target.engine.begin() as connection:
        check_columns(connection, subject.target.schema, report)


@contextmanager
def _reported(report: Report, path: str) -> Iterator[None]:
    """Record an error as a failure of this path, and continue with the next checks."""
    try:
        yield
    except FAULTS as error:
        report.fail(path, "the proof", "it stopped here", seen=describe_error(error))


def _server(url: URL) -> dict[str, str]:
    """Return the server's version, and the zone and style in which it starts sessions."""
    with plain_connection(url) as connection:
        names = ("server_version", "TimeZone", "DateStyle")
        return {name: connection.info.parameter_status(name) or "" for name in names}
