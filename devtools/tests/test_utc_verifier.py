"""Who verifies the verifier: each defence is taken away in turn, and the proof must fail and name what broke."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, Engine, text

from backend.database import connect
from backend.models.models import Base
from backend.tests.application import make_app
from backend.utc import column, dumpers, field, guard, instants, loaders, session
from devtools.utc_check import Subject
from devtools.utc_check import our_tables as utc_subjects
from devtools.utc_check.report import Report
from devtools.utc_check.verify import verify

Sabotage = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Defence:
    """How it is taken away, by code or in the schema, and the paths that must then fail."""

    paths: set[str]
    sabotage: Sabotage = lambda _: None
    sql: str | None = None


def replaced(place: object, name: str, value: object) -> Sabotage:
    return lambda monkeypatch: monkeypatch.setattr(place, name, value)


def lenient(value: str) -> datetime:
    """As FastAPI would read it, whose text need not say an offset."""
    return datetime.fromisoformat(value)


DEFENCES = {
    "session pin": Defence(
        {"session/new", "session/rolled-back", "session/leaked-zone", "session/sql", "orm/rendered"},
        replaced(session, "_pin", lambda _: None),
    ),
    "pin outside any transaction": Defence(
        {"session/rolled-back"}, replaced(session, "_outside_transaction", lambda _: nullcontext())
    ),
    "check at checkout": Defence(
        {"session/leaked-zone", "session/leaked-style"}, replaced(session, "_is_pinned", lambda _: True)
    ),
    "loaders": Defence(
        {
            "core/orm-midway",
            "core/core-midway",
            "core/cursor-midway",
            "core/copy-midway",
            "core/binary-range",
        },
        replaced(loaders, "register", lambda _: None),
    ),
    "dumpers": Defence(
        {
            f"refused/{door}"
            for door in ("text", "cursor", "array", "range", "binary-range", "copy", "untyped-copy")
        },
        replaced(dumpers, "register", lambda _: None),
    ),
    "binding": Defence(
        {"refused/core", "refused/bulk", "refused/orm", "refused/comparison"},
        replaced(column, "_bind", lambda value: value),
    ),
    "result of an engine that is not pinned": Defence(
        {"core/unpinned", "orm/unpinned"},
        replaced(column.UtcDateTime, "process_result_value", lambda _type, value, _dialect: value),
    ),
    "normalisation when set": Defence(
        {"normalised/attribute", "refused/attribute", "update/stored"},
        replaced(guard, "_normalise", lambda _column, value: value),
    ),
    "grammar of requests": Defence({"grammar/refused"}, replaced(field, "parse_utc", lenient)),
    "width of responses": Defence(
        {"core/http", "grammar/shown"},
        replaced(instants, "_WHOLE_SECOND", "Z"),
    ),
    "range of a column": Defence(
        {"range/job_queue.run_at"}, sql="ALTER TABLE job_queue DROP CONSTRAINT ck_job_queue_run_at_range"
    ),
    "trigger": Defence(
        {"trigger/companies", "clock/changed-row"}, sql="DROP TRIGGER keep_timestamps ON companies"
    ),
    "one clock": Defence(
        {"clock/fresh-row"}, sql="ALTER TABLE companies ALTER updated_at SET DEFAULT clock_timestamp()"
    ),
    "microseconds": Defence(
        {"lint/schema", "orm/stored", "copy/stored"},
        sql="ALTER TABLE job_queue ALTER run_at TYPE timestamptz(3)",
    ),
    "time zone of a column": Defence(
        {"lint/schema", "other-client/stored", "core/core"},
        sql="ALTER TABLE job_queue ALTER lease_expires_at TYPE timestamp",
    ),
}


def showing_a_bare_datetime(engine: Engine) -> FastAPI:
    app = make_app(engine)

    @app.get("/now")
    def now() -> datetime:
        return datetime.now(UTC)

    return app


@pytest.fixture
def prove(postgres_url: str) -> Iterator[Callable[..., Report]]:
    """Prove two tables in one zone, on an engine made when it is called."""
    engines: list[Engine] = []

    def prove(**options: Any) -> Report:  # noqa: ANN401 - verify's
        engines.append(connect(postgres_url))
        return run(engines[-1], **options)

    yield prove
    for engine in engines:
        engine.dispose()


def run(
    engine: Engine,
    *,
    sql: str | None = None,
    make: Callable[[Engine], FastAPI] = make_app,
    **options: Any,  # noqa: ANN401 - verify's
) -> Report:
    def subjects(connection: Connection) -> list[Subject]:
        if sql:
            connection.execute(text(sql))
        return [
            subject
            for subject in utc_subjects.subjects(connection)
            if subject.table.name in ("companies", "job_queue")
        ]

    return verify(engine, Base, make, subjects, **{"zones": ["America/New_York"], "seed": 7, **options})


def test_nothing_is_wrong_where_nothing_was_taken_away(prove: Callable[..., Report]) -> None:
    report = prove()

    assert report.failures == []
    assert report.is_proved


def test_bare_datetime_in_the_api_is_found(prove: Callable[..., Report]) -> None:
    report = prove(make=showing_a_bare_datetime, only="openapi")

    assert [failure.subject.split("/")[:4] for failure in report.failures] == [["", "paths", "", "now"]]


@pytest.mark.parametrize("defence", DEFENCES.values(), ids=DEFENCES)
def test_defence_is_missed_when_it_is_taken_away(
    prove: Callable[..., Report], defence: Defence, monkeypatch: pytest.MonkeyPatch
) -> None:
    defence.sabotage(monkeypatch)
    report = prove(sql=defence.sql)

    assert defence.paths - set(report.failed) == set()
    assert not report.is_proved
