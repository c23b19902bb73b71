"""The proof itself, from the first schema to the report."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random

from psycopg import sql
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import DeclarativeBase

from devtools.utc_check.application import Application, Client
from devtools.utc_check.ground import Ground, break_ground, environment
from devtools.utc_check.kept import check_kept, check_ranges
from devtools.utc_check.matrix import cross, finding
from devtools.utc_check.refusals import check_refusals
from devtools.utc_check.report import Report
from devtools.utc_check.server import observe
from devtools.utc_check.sessions import check_sessions
from devtools.utc_check.shapes import check_columns, check_grammar, check_openapi
from devtools.utc_check.subjects import Round, Subject
from devtools.utc_check.values import catalogue

ZONES = ("America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia")
# None of them is what psycopg reads.
_STYLES = ("SQL, DMY", "German", "Postgres, MDY")
_LEVERS = ("environment", "database", "role in database")


def verify(
    engine: Engine,
    models: type[DeclarativeBase],
    create_app: Callable[[Engine], Application],
    subjects: Callable[[Connection], Sequence[Subject]],
    *,
    zones: Sequence[str] = ZONES,
    seed: int | None = None,
    only: str | None = None,
    owns_database: bool = False,
) -> Report:
    """Prove on this database that no layer stores or shows a wrong time. What is broken is reported, not raised.

    The tables are those that the application makes when it starts (`create_app` is handed an engine like the given one,
    on a schema that is removed in the end), and `subjects`, called once in that schema, says how rows of them are made.
    `zones` are those that sessions are moved to, by libpq's environment; where the database was made for this
    (`owns_database`), by its own settings too. `seed` repeats the random instants of an earlier report, `only` a path.

    Nothing else in the database is written to, and nothing is set. It needs the right to create a schema; psycopg's and
    SQLAlchemy's errors are raised where that is missing, and what the application raises where it does not start.
    """
    began = time.perf_counter()
    seed = Random().randrange(2**32) if seed is None else seed  # noqa: S311 - what can be repeated is what is wanted
    report = Report(seed, tuple(zones), only=only)
    with break_ground(engine) as ground:
        known: list[Subject] = []
        for number, zone in enumerate(zones):
            lever = _LEVERS[number % len(_LEVERS)] if owns_database else _LEVERS[0]
            with _moved(ground, zone, _STYLES[number % len(_STYLES)], lever), ExitStack() as stack:
                round_ = _begin(ground, zone, seed, create_app, stack)
                if not known:
                    with round_.engine.begin() as connection:
                        known.extend(subjects(connection))
                    _check_once(round_, models, known, report)
                with finding(report, "session/new"):
                    check_sessions(round_, report)
                for subject in known if number == 0 else filter(_in_every_zone, known):
                    with finding(report, f"stored/{subject.table.name}"):
                        cross(round_, subject, report)
        with engine.connect() as connection:
            observe(ground.oracle, connection, ground.schema, report)
    report.seconds = time.perf_counter() - began
    return report


def _in_every_zone(subject: Subject) -> bool:
    return subject.in_every_zone


def _begin(
    ground: Ground, zone: str, seed: int, create_app: Callable[[Engine], Application], stack: ExitStack
) -> Round:
    engine = stack.enter_context(ground.twin())
    stranger = stack.enter_context(ground.stranger())
    client = stack.enter_context(Client(create_app(engine)))
    return Round(ground, zone, catalogue(zone, seed), engine, stranger, client)


def _check_once(
    round_: Round, models: type[DeclarativeBase], subjects: Sequence[Subject], report: Report
) -> None:
    """Check what no session's zone has a part in."""
    check_grammar(report)
    check_openapi(round_.client, report)
    with round_.engine.begin() as connection:
        check_columns(connection, models.metadata, round_.ground.schema, report)
    for subject in subjects:
        for path, check in (("refused", check_refusals), ("range", check_ranges), ("trigger", check_kept)):
            with finding(report, f"{path}/{subject.table.name}"):
                check(round_, subject, report)


@contextmanager
def _moved(ground: Ground, zone: str, style: str, lever: str) -> Iterator[None]:
    """Have new sessions begin in this zone and style."""
    if lever == "environment":
        with environment(PGTZ=zone, PGDATESTYLE=style):
            yield
        return
    database = sql.Identifier(ground.oracle.info.dbname)
    target = sql.SQL("DATABASE {}").format(database)
    if lever == "role in database":
        target = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(ground.oracle.info.user), database)
    settings = {"timezone": zone, "datestyle": style}
    with environment(PGTZ=None, PGDATESTYLE=None):
        try:
            for name, value in settings.items():
                ground.oracle.execute(
                    sql.SQL("ALTER {} SET {} = {}").format(target, sql.Identifier(name), value)
                )
            yield
        finally:
            for name in settings:
                ground.oracle.execute(sql.SQL("ALTER {} RESET {}").format(target, sql.Identifier(name)))
