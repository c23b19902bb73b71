"""The write and read paths of `nox -s utc_check`, one by one, in sessions that start in New York."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from psycopg.types.datetime import TimestamptzLoader
from sqlalchemy import Engine, create_engine

from backend.tests.application import Connect
from backend.utc import loaders
from devtools.utc_check.cases import COMMON_VALUES, zone_values
from devtools.utc_check.checks import ENTRIES, check_refusals, check_sessions
from devtools.utc_check.proof_report import HTTP, STORED, Report
from devtools.utc_check.round_trips import cross
from devtools.utc_check.sandbox_schema import Subject, Target, confined, make_subjects, plain_connection
from devtools.utc_check.writers_and_readers import READS, WRITES

ZONE, SEED = "America/New_York", 7
VALUES = [*COMMON_VALUES, *zone_values(ZONE, SEED)]


@pytest.fixture
def utc_target(engine: Engine, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    monkeypatch.setenv("PGTZ", ZONE)
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    with (
        confined(create_engine(engine.url), "public", style="ISO") as unpinned,
        plain_connection(engine.url) as plain,
    ):
        yield Target("public", ZONE, engine, unpinned, plain, client)


def assert_proved(target: Target, path: str, check: Callable[[Subject, Report], None]) -> None:
    report = Report(SEED, (ZONE,), only=(path,))
    for subject in make_subjects(target):
        check(subject, report)

    assert report.failures == []
    assert report.checks.total() > 0


def check_crossing(subject: Subject, report: Report) -> None:
    cross(subject, VALUES, report)


@pytest.mark.parametrize("write", [HTTP, *WRITES])
def test_written_values_are_stored_to_the_microsecond(utc_target: Target, write: str) -> None:
    assert_proved(utc_target, f"{write}/{STORED}", check_crossing)


@pytest.mark.parametrize("read", READS)
def test_stored_values_are_read_in_utc(utc_target: Target, read: str) -> None:
    assert_proved(utc_target, f"plain/{read}", check_crossing)


@pytest.mark.parametrize("entry", ENTRIES)
def test_values_that_are_not_aware_datetimes_are_refused(utc_target: Target, entry: str) -> None:
    assert_proved(utc_target, f"refused/{entry}", check_refusals)


def test_sessions_of_the_pool_are_in_utc(utc_target: Target, connect_pinned: Connect) -> None:
    report = Report(SEED, (ZONE,))
    check_sessions(utc_target, connect_pinned(), report)

    assert report.failures == []


@pytest.mark.parametrize("path", ["orm/stored", "core/cursor", "core/binary-range"])
def test_psycopg_without_its_c_code_gives_the_same_results(
    utc_target: Target, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders, "fastest", lambda python_class: python_class)
    utc_target.engine.dispose()
    with utc_target.engine.connect() as connection:
        raw = connection.connection.driver_connection
        loader = raw.adapters.get_loader(1184, 0)(1184, None)  # type: ignore[union-attr]  # it is open
        assert type(loader) is TimestamptzLoader

    assert_proved(utc_target, path, check_crossing)
    utc_target.engine.dispose()
