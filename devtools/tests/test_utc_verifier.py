"""The tests remove one defence after the other; each time the proof must fail and name what broke."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text

from backend.database import init_db
from backend.tests.application import make_app
from backend.utc import column, dumpers, instants, loaders, model_guards, session
from devtools.utc_check.proof_report import Report
from devtools.utc_check.verification import verify

Remove = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Defence:
    """How to remove a defence, in the code or by SQL in the schema, and the paths that must fail without it."""

    paths: tuple[str, ...]
    remove: Remove = lambda _: None
    sql: str | None = None


def replaced(place: object, name: str, value: object) -> Remove:
    return lambda monkeypatch: monkeypatch.setattr(place, name, value)


def refused(*entries: str) -> tuple[str, ...]:
    return tuple(f"refused/{entry}" for entry in entries)


def pin_in_a_transaction(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SET TIME ZONE 'UTC'; SET datestyle = 'ISO, MDY'")


DEFENCES = {
    "session pin": Defence(
        ("session/new", "session/rolled-back", "session/leaked-zone", "session/sql"),
        replaced(session, "_pin", lambda _: None),
    ),
    "pin outside any transaction": Defence(
        ("session/rolled-back",),
        replaced(session, "_pin", pin_in_a_transaction),
    ),
    "check at checkout": Defence(
        ("session/leaked-zone", "session/leaked-style"),
        replaced(session, "_session_is_utc", lambda _: True),
    ),
    "loaders": Defence(
        tuple(f"core/{read}" for read in ("orm", "cursor", "copy", "binary-copy", "binary-range")),
        replaced(loaders, "register", lambda _: None),
    ),
    "dumpers": Defence(
        refused("text", "cursor", "binary-cursor", "copy", "binary-copy")
        + refused("array", "mixed-array", "range", "binary-range", "untyped-range", "multirange"),
        replaced(dumpers, "register", lambda _: None),
    ),
    "binding": Defence(
        refused("core", "orm-bulk", "comparison"), replaced(column, "_to_utc", lambda value: value)
    ),
    "results of an engine that is not pinned": Defence(
        ("core/unpinned", "orm/unpinned"),
        replaced(column.UtcDateTime, "process_result_value", lambda _type, value, _dialect: value),
    ),
    "conversion when set": Defence(
        ("refused/attribute",), replaced(model_guards, "ensure_utc", lambda value: value)
    ),
    "width of responses": Defence(("core/http",), replaced(instants, "_WHOLE_SECOND", "Z")),
    "range of a column": Defence(
        ("range/job_queue.run_at",), sql="ALTER TABLE job_queue DROP CONSTRAINT ck_job_queue_run_at_range"
    ),
    "one clock": Defence(
        ("clock/new-row",), sql="ALTER TABLE companies ALTER updated_at SET DEFAULT clock_timestamp()"
    ),
    "microseconds": Defence(
        ("lint/schema", "orm/stored", "copy/stored"),
        sql="ALTER TABLE job_queue ALTER run_at TYPE timestamptz(3)",
    ),
    "time zone of a column": Defence(
        ("lint/schema", "plain/stored", "core/core"),
        sql="ALTER TABLE job_queue ALTER lease_expires_at TYPE timestamp",
    ),
}
EVERYTHING = {path for defence in DEFENCES.values() for path in defence.paths}


def prove(engine: Engine, only: Collection[str], *, sql: str | None = None) -> Report:
    def make_broken_app(engine: Engine) -> FastAPI:
        if sql:
            init_db(engine)
            with engine.begin() as connection:
                connection.execute(text(sql))
        return make_app(engine)

    return verify(engine.url, make_broken_app, zones=["America/New_York"], seed=7, only=tuple(only))


def test_paths_that_the_defences_name_hold_with_all_of_them(engine: Engine) -> None:
    report = prove(engine, EVERYTHING)

    assert report.failures == []
    assert report.checks.keys() == EVERYTHING


@pytest.mark.parametrize("defence", DEFENCES.values(), ids=DEFENCES)
def test_proof_fails_without_a_defence(
    engine: Engine, defence: Defence, monkeypatch: pytest.MonkeyPatch
) -> None:
    defence.remove(monkeypatch)
    report = prove(engine, defence.paths, sql=defence.sql)

    assert set(defence.paths) - set(report.failed) == set()
    assert not report.is_proved
