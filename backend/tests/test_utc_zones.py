"""For every IANA zone, on both sides of its folds and within its gaps, in sessions of every zone."""

import zoneinfo
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sqlalchemy import ARRAY, Connection, Engine, bindparam, text
from sqlalchemy.orm import Session

from backend.models.models import JobQueue
from backend.tests.application import Connect
from backend.tests.test_utc_values import INSTANTS, ZONES, microseconds
from backend.utc import UtcDateTime, UtcField, ensure_utc, format_utc, parse_utc

LOWEST, HIGHEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC)


@cache
def changes(zone: zoneinfo.ZoneInfo) -> list[datetime]:
    """Return the instants, in UTC and to the second, at which this zone's clocks were changed from 1880 to 2037."""
    months = [datetime(year, month, 1, tzinfo=UTC) for year in range(1880, 2038) for month in range(1, 13)]
    return [
        _change_between(left, right, zone)
        for left, right in pairwise(months)
        if left.astimezone(zone).utcoffset() != right.astimezone(zone).utcoffset()
    ]


def _change_between(left: datetime, right: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    before = left.astimezone(zone).utcoffset()
    while right - left > timedelta(seconds=1):
        middle = left + timedelta(seconds=(right - left) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == before:
            left = middle
        else:
            right = middle
    return right


def _near_a_change(zone: zoneinfo.ZoneInfo) -> st.SearchStrategy[datetime]:
    # The wall clock is what is drawn, so that hours that were shown twice and hours that never were both occur.
    def held(change: datetime, distance: timedelta, fold: int) -> datetime:
        return (change.astimezone(zone).replace(tzinfo=None) + distance).replace(tzinfo=zone, fold=fold)

    hours = timedelta(hours=3)
    return st.builds(held, st.sampled_from(changes(zone)), st.timedeltas(-hours, hours), st.integers(0, 1))


CHANGING = [zone for zone in ZONES if zone.key.count("/")]
HELD = (
    st.sampled_from(CHANGING).filter(changes).flatmap(_near_a_change)
    | st.builds(lambda at, fold: at.replace(fold=fold), INSTANTS, st.integers(0, 1))
).filter(lambda at: LOWEST <= ensure_utc(at) <= HIGHEST)


def counted(value: datetime) -> int:
    """Count microseconds from the epoch by arithmetic on the wall clock and its offset alone."""
    offset = value.utcoffset()
    assert offset is not None
    wall = value.replace(tzinfo=UTC, fold=0)
    return microseconds(wall) - offset // timedelta(microseconds=1)


@given(HELD)
def test_both_sides_of_every_fold_and_gap_become_their_own_instant(value: datetime) -> None:
    utc = ensure_utc(value)

    assert utc.tzinfo is UTC
    assert microseconds(utc) == counted(value)
    assert parse_utc(format_utc(value)) == utc


@given(HELD)
def test_field_shows_and_reads_the_same_instant(value: datetime) -> None:
    adapter = TypeAdapter(UtcField)
    shown = adapter.dump_json(value)

    assert len(shown) == 27 + len('""')
    assert counted(adapter.validate_json(shown)) == counted(value)


@pytest.fixture(scope="module")
def session_zones(postgres_url: str) -> list[str]:
    """Return the zones that the server knows."""
    with psycopg.connect(postgres_url) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM pg_timezone_names ORDER BY name")]


ROUND_TRIP = text("""
    SELECT at, (extract(epoch FROM at) * 1000000)::int8, array_agg(at) OVER ()
    FROM unnest(:values) WITH ORDINALITY AS moments (at, n) ORDER BY n
""").bindparams(bindparam("values", type_=ARRAY(UtcDateTime())))
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(st.lists(HELD, min_size=1, max_size=20), st.data())
def test_round_trip_under_every_session_zone(
    engine: Engine, session_zones: Sequence[str], values: list[datetime], data: st.DataObject
) -> None:
    zone = data.draw(st.sampled_from(session_zones))
    with engine.connect() as connection:
        connection.execute(text("SELECT set_config('TimeZone', :zone, true)"), {"zone": zone})
        typed = connection.execute(
            ROUND_TRIP.columns(at=UtcDateTime()), {"values": [ensure_utc(value) for value in values]}
        ).all()
        raw = rows_of_the_driver(connection, values)

    expected = [counted(value) for value in values]
    for rows in (typed, *raw):
        assert [row[1] for row in rows] == expected
        assert [microseconds(row[0]) for row in rows] == expected
        assert sorted(microseconds(at) for at in rows[0][2]) == sorted(expected)
        assert all(row[0].tzinfo is UTC and row[2][0].tzinfo is UTC for row in rows)


def rows_of_the_driver(
    connection: Connection, values: list[datetime]
) -> list[Sequence[tuple[datetime, int, list[datetime]]]]:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    query = str(ROUND_TRIP).replace(":values", "%s::timestamptz[]").encode()
    return [raw.execute(query, [values], binary=binary).fetchall() for binary in (False, True)]


@SLOW
@given(HELD, st.data())
def test_attribute_is_the_same_before_the_flush_and_after_the_refresh(
    engine: Engine, session_zones: Sequence[str], value: datetime, data: st.DataObject
) -> None:
    zone = data.draw(st.sampled_from(session_zones))
    with Session(engine) as session:
        session.execute(text("SELECT set_config('TimeZone', :zone, true)"), {"zone": zone})
        company = session.scalar(text("INSERT INTO companies (name) VALUES ('x') RETURNING id"))
        job = JobQueue(company_id=company, job_type="sync", run_at=value)
        session.add(job)
        before = job.run_at
        session.flush()
        session.refresh(job)
        stored = session.scalar(text("SELECT (extract(epoch FROM run_at) * 1000000)::int8 FROM job_queue"))

        assert (job.run_at, job.run_at.tzinfo) == (before, UTC)
        assert stored == counted(value) == microseconds(job.run_at)


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
)
def test_what_the_server_computes_follows_utc_whatever_the_zone_of_the_connection(
    connect_pinned: Connect, zone: str
) -> None:
    """Days, parts, JSON and day-long intervals follow the session, and the session is pinned."""
    engine = connect_pinned(connect_args={"options": f"-c timezone={zone}"})
    query = text("""
        SELECT at::date::text, date_trunc('day', at), extract(hour FROM at)::int, to_jsonb(at),
               at + interval '1 day' - at, ('2024-03-10'::date)::timestamptz
        FROM (SELECT timestamptz '2024-03-10 04:30:00Z' AS at) AS moments
    """)
    with engine.connect() as connection:
        row = connection.execute(query).one()

    midnight = datetime(2024, 3, 10, tzinfo=UTC)
    assert tuple(row) == (
        "2024-03-10",
        midnight,
        4,
        "2024-03-10T04:30:00+00:00",
        timedelta(days=1),
        midnight,
    )
