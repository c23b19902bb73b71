"""What the driver loads and sends, on raw cursors and in COPY too, in sessions whose zone was moved."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql
from psycopg.adapt import Loader, PyFormat, Transformer
from psycopg.postgres import types
from psycopg.pq import Format
from psycopg.types.multirange import Multirange, TimestamptzMultirange
from psycopg.types.range import Range, TimestamptzRange
from sqlalchemy import Engine, select, text

from backend.models.models import Company
from backend.tests.application import Connect
from backend.tests.test_utc_values import Moment, Nanoseconds, NoOffset, NotATime, microseconds
from backend.utc import dumpers, loaders

NEW_YORK = ZoneInfo("America/New_York")
START = datetime(2024, 1, 1, tzinfo=UTC)
FOLD = datetime(2024, 11, 3, 1, 30, tzinfo=NEW_YORK)
INSTANTS = [
    FOLD,
    FOLD.replace(fold=1),
    datetime(2024, 3, 10, 2, 30, tzinfo=NEW_YORK),  # a gap: no clock showed it
    datetime(1880, 1, 1, tzinfo=NEW_YORK),  # 4:56:02 behind
    datetime(2023, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC),
]
MICROSECONDS = [microseconds(at) for at in INSTANTS]
ZONES = ["America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "Africa/Monrovia"]

FORMS = pytest.mark.parametrize("form", Format, ids=["text", "binary"])

Raw = psycopg.Connection[Any]


@pytest.fixture(params=["fastest", "python"])
def raw(
    request: pytest.FixtureRequest, connect_pinned: Connect, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Raw]:
    """Give a connection of a pinned engine; with psycopg's own loaders and dumpers in C, and in Python."""
    if request.param == "python":
        monkeypatch.setattr(loaders, "fastest", lambda loader: loader)
        monkeypatch.setattr(dumpers, "fastest", lambda dumper: dumper)
    pooled = connect_pinned().raw_connection()
    connection = pooled.driver_connection
    assert isinstance(connection, psycopg.Connection)
    yield connection
    pooled.close()


def assert_instants(values: list[datetime]) -> None:
    assert all(value.tzinfo is UTC for value in values)
    assert [microseconds(value) for value in values] == MICROSECONDS


def move(raw: Raw, zone: str) -> None:
    raw.execute("SELECT set_config('TimeZone', %s, true)", [zone])


def copied(raw: Raw, form: Format) -> list[datetime]:
    query = sql.SQL("COPY (SELECT at FROM moments ORDER BY n) TO STDOUT (FORMAT {})")
    with raw.cursor().copy(query.format(sql.SQL(form.name))) as copy:
        copy.set_types(["timestamptz"])
        return [row[0] for row in copy.rows()]


def streamed(raw: Raw, form: Format) -> list[datetime]:
    with raw.cursor("stream") as cursor:
        cursor.execute("SELECT at FROM moments ORDER BY n", binary=bool(form))
        return [row[0] for row in cursor]


def one(raw: Raw, query: LiteralString, form: Format) -> Any:  # noqa: ANN401 - whatever was selected
    row = raw.execute(query, binary=bool(form)).fetchone()
    assert row is not None
    return row[0]


READS: dict[str, Callable[[Raw, Format], list[datetime]]] = {
    "rows": lambda raw, form: [
        at for (at,) in raw.execute("SELECT at FROM moments ORDER BY n", binary=bool(form))
    ],
    "server-side cursor": streamed,
    "COPY": copied,
    "array": lambda raw, form: one(raw, "SELECT array_agg(at ORDER BY n) FROM moments", form),
    "range": lambda raw, form: [
        range_.lower
        for range_ in one(raw, "SELECT array_agg(tstzrange(at, NULL) ORDER BY n) FROM moments", form)
    ],
    "multirange": lambda raw, form: [
        ranges[0].upper
        for ranges in one(
            raw, "SELECT array_agg(tstzmultirange(tstzrange(NULL, at)) ORDER BY n) FROM moments", form
        )
    ],
    "record": lambda raw, _: [
        # PostgreSQL renders a record's columns itself, so only its binary form has values.
        record[0]
        for record in (row[0] for row in raw.execute("SELECT row(at) FROM moments ORDER BY n", binary=True))
    ],
}


@pytest.fixture
def moments(raw: Raw) -> Raw:
    """Give the connection a table of the instants, written as whole microseconds that no driver has touched."""
    raw.execute("CREATE TEMPORARY TABLE moments (n int, at timestamptz) ON COMMIT DROP")
    for n, count in enumerate(MICROSECONDS):
        raw.execute(
            "INSERT INTO moments VALUES (%s, '1970-01-01 00:00:00+00'::timestamptz"
            " + make_interval(days => %s::int) + make_interval(secs => %s::int)"
            " + %s * interval '1 microsecond')",
            [n, count // 86_400_000_000, count // 1_000_000 % 86_400, count % 1_000_000],
        )
    return raw


@pytest.mark.parametrize("zone", ZONES)
@FORMS
@pytest.mark.parametrize("read", READS)
def test_loaded_values_are_utc_in_a_moved_session(moments: Raw, read: str, form: Format, zone: str) -> None:
    move(moments, zone)

    assert_instants(READS[read](moments, form))


def test_two_sides_of_a_fold_load_apart_and_sort_as_postgresql_sorts(moments: Raw) -> None:
    move(moments, "America/New_York")
    loaded = [at for (at,) in moments.execute("SELECT at FROM moments ORDER BY at")]
    first, second = (at for at in loaded if at.date() == date(2024, 11, 3))

    assert second - first == timedelta(hours=1)
    assert len({first, second}) == 2
    assert loaded == sorted(loaded)


def test_a_day_added_over_a_change_is_24_hours(moments: Raw) -> None:
    move(moments, "America/New_York")
    at = READS["rows"](moments, Format.TEXT)[2]
    later = one(moments, "SELECT at + interval '24 hours' FROM moments WHERE n = 2", Format.TEXT)

    assert at + timedelta(days=1) == later


def test_orm_core_and_text_load_utc_in_a_moved_session(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO companies (name, created_at) VALUES ('x', '2024-11-03 06:30Z')"))
        connection.execute(text("SET LOCAL TIME ZONE 'America/New_York'"))
        values = [
            connection.scalar(text("SELECT created_at FROM companies")),
            connection.scalar(select(Company.created_at)),
            connection.scalar(select(Company.__table__.c.created_at)),
        ]

    assert all(value.tzinfo is UTC for value in values)
    assert set(values) == {datetime(2024, 11, 3, 6, 30, tzinfo=UTC)}


def test_zone_that_python_does_not_know_changes_nothing(
    moments: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver takes it for UTC, and says so in a log alone."""
    move(moments, "<+03>-03")
    with caplog.at_level(logging.WARNING):
        assert_instants(READS["rows"](moments, Format.TEXT))

    assert not caplog.records


def test_text_in_another_datestyle_is_refused_and_not_misread(raw: Raw) -> None:
    """As ISO, 01/02/0003 would be a day in the year 1."""
    raw.execute("SET LOCAL datestyle = 'SQL, DMY'")
    move(raw, "Asia/Kathmandu")
    cursor = raw.execute("SELECT timestamptz '0003-02-01 00:00:00Z'")
    with pytest.raises(NotImplementedError, match="SQL, DMY"):
        cursor.fetchone()

    cursor = raw.execute("SELECT timestamptz '0003-02-01 00:00:00Z'", binary=True)
    assert cursor.fetchone() == (datetime(3, 2, 1, tzinfo=UTC),)


@pytest.mark.parametrize("value", ["infinity", "-infinity", "0044-03-15 12:00Z BC", "10000-01-01 00:00Z"])
@FORMS
def test_what_python_cannot_hold_is_an_error_and_not_another_time(raw: Raw, value: str, form: Format) -> None:
    cursor = raw.execute("SELECT %s::timestamptz", [value], binary=bool(form))
    with pytest.raises(psycopg.DataError, match=r"too (large|small)"):
        cursor.fetchone()


def test_dumper_in_c_is_taken_for_what_is_in_utc_already(connect_pinned: Connect) -> None:
    pooled = connect_pinned().raw_connection()
    transformer = Transformer(pooled.driver_connection)
    for_utc, for_others = (
        type(transformer.get_dumper(at, PyFormat.AUTO)).__module__
        for at in (START, START.astimezone(NEW_YORK))
    )

    assert for_utc.endswith("._psycopg") == (psycopg.pq.__impl__ != "python")
    assert for_others == "backend.utc.dumpers"
    pooled.close()


def test_loaders_in_c_are_taken_where_psycopg_has_them(connect_pinned: Connect) -> None:
    pooled = connect_pinned().raw_connection()
    adapters = pooled.driver_connection.adapters  # type: ignore[union-attr]  # it is open
    oid = types["timestamptz"].oid
    for form in Format:
        loader: Loader = adapters.get_loader(oid, form)(oid, None)
        assert type(loader).__module__.endswith("._psycopg") == (psycopg.pq.__impl__ != "python")
    pooled.close()


def test_other_connections_of_the_process_are_left_as_they_were(raw: Raw, postgres_url: str) -> None:
    url = postgres_url
    with psycopg.connect(url, options="-c timezone=America/New_York") as other:
        (at,) = other.execute("SELECT %s::timestamptz", [datetime(2024, 1, 1)]).fetchone() or ()  # noqa: DTZ001 - which it takes

    assert at.tzinfo == NEW_YORK


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("format_", [PyFormat.TEXT, PyFormat.BINARY, PyFormat.AUTO])
def test_sent_instants_arrive_in_a_moved_session(raw: Raw, format_: PyFormat, zone: str) -> None:
    move(raw, zone)
    template = sql.SQL("SELECT (extract(epoch FROM {}::timestamptz) * 1000000)::int8")
    query = template.format(sql.Placeholder(format=format_))

    stored = [raw.execute(query, [at]).fetchone() for at in INSTANTS]
    assert stored == [(count,) for count in MICROSECONDS]


@FORMS
@pytest.mark.parametrize("named", [None, ["timestamptz"]], ids=["by value", "by type"])
def test_copied_instants_arrive_in_a_moved_session(raw: Raw, named: list[str] | None, form: Format) -> None:
    move(raw, "America/New_York")
    raw.execute("CREATE TEMPORARY TABLE moments (at timestamptz) ON COMMIT DROP")
    query = sql.SQL("COPY moments FROM STDIN (FORMAT {})").format(sql.SQL(form.name))
    with raw.cursor().copy(query) as copy:
        if named:
            copy.set_types(named)
        for at in [*INSTANTS, Moment(2024, 1, 1, tzinfo=UTC), None]:
            copy.write_row([at])

    stored = raw.execute("SELECT (extract(epoch FROM at) * 1000000)::int8 FROM moments").fetchall()
    assert stored == [(count,) for count in [*MICROSECONDS, 1_704_067_200_000_000, None]]


def test_sent_arrays_and_ranges_hold_the_instants(raw: Raw) -> None:
    move(raw, "America/New_York")
    start, end = FOLD.astimezone(UTC), datetime(2025, 1, 1, tzinfo=UTC)
    # In the fold Python holds no two zones' times for equal, so what comes back is compared in UTC.
    sent, expected = (
        (
            Range(at, end),
            TimestamptzRange(at, end),
            TimestamptzRange(None, None),
            Multirange([Range(at, end)]),
            TimestamptzMultirange([Range(at, end)]),
        )
        for at in (FOLD, start)
    )
    row = raw.execute("SELECT %s, %s, %s, %s, %s, %s", [INSTANTS, *sent]).fetchone()

    assert row is not None
    assert_instants(row[0])
    assert row[1:] == expected
    assert {row[1].lower.tzinfo, row[4][0].lower.tzinfo} == {UTC}


NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - the mistake under test
REFUSED = {
    "naive": NAIVE,
    "no offset": datetime(2024, 1, 1, tzinfo=NoOffset()),
    "not a time": NotATime(2024, 1, 1, tzinfo=UTC),
    "nanoseconds": Nanoseconds(2024, 1, 1, tzinfo=UTC),
    "before year 1": datetime(1, 1, 1, tzinfo=ZoneInfo("Asia/Kathmandu")),
}
NO_INSTANTS = REFUSED.values()


def copy_in(raw: Raw, value: object, type_: str | None, form: Format) -> None:
    raw.execute("CREATE TEMPORARY TABLE moments (at timestamptz) ON COMMIT DROP")
    query = sql.SQL("COPY moments FROM STDIN (FORMAT {})").format(sql.SQL(form.name))
    with raw.cursor().copy(query) as copy:
        if type_:
            copy.set_types([type_])
        copy.write_row([value])


@pytest.mark.parametrize("value", NO_INSTANTS, ids=REFUSED)
@pytest.mark.parametrize("place", ["%s", "%t", "%b", "%s::timestamptz", "%b::timestamp"])
def test_what_is_no_instant_is_refused_as_a_parameter(raw: Raw, value: datetime, place: str) -> None:
    with pytest.raises(psycopg.DataError, match="refused as a timestamptz"):
        raw.execute(f"SELECT {place}".encode(), [value])


@pytest.mark.parametrize("value", NO_INSTANTS, ids=REFUSED)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda at: [at],
        lambda at: [FOLD, at],
        lambda at: [at, START],
        lambda at: Range(at, None),
        lambda at: Range(FOLD, at),
        lambda at: TimestamptzRange(None, at),
        lambda at: Multirange([Range(at, None)]),
        lambda at: TimestamptzMultirange([Range(FOLD, at)]),
    ],
    ids=[
        "array",
        "array's second",
        "array's first",
        "range",
        "upper bound",
        "named range",
        "multirange",
        "named multirange",
    ],
)
@pytest.mark.parametrize("place", ["%s", "%t", "%b"])
def test_what_is_no_instant_is_refused_within(raw: Raw, value: datetime, wrap: Any, place: str) -> None:  # noqa: ANN401 - makes a value
    with pytest.raises(psycopg.DataError):
        raw.execute(f"SELECT {place}".encode(), [wrap(value)])


@FORMS
@pytest.mark.parametrize("type_", [None, "timestamptz", "timestamp"])
@pytest.mark.parametrize("value", NO_INSTANTS, ids=REFUSED)
def test_what_is_no_instant_is_refused_in_copy(
    raw: Raw, value: datetime, type_: str | None, form: Format
) -> None:
    with pytest.raises(psycopg.DataError, match=r"refused as a timestamptz|holds no instant"):
        copy_in(raw, value, type_, form)


@FORMS
@pytest.mark.parametrize("value", [date(2024, 1, 1), "2024-01-01", 0], ids=["date", "text", "number"])
def test_what_is_no_datetime_is_refused_where_the_type_is_named(
    raw: Raw, value: object, form: Format
) -> None:
    with pytest.raises(psycopg.DataError, match="a datetime is needed"):
        copy_in(raw, value, "timestamptz", form)


@pytest.mark.parametrize("place", ["%t", "%b"])
def test_date_is_refused_as_the_bound_of_a_named_range(raw: Raw, place: str) -> None:
    with pytest.raises(psycopg.DataError, match="a datetime is needed"):
        raw.execute(f"SELECT {place}".encode(), [TimestamptzRange(date(2024, 1, 1), None)])  # type: ignore[arg-type]  # the mistake under test


def test_naive_datetime_in_text_is_refused_by_the_engine(engine: Engine) -> None:
    with (
        engine.connect() as connection,
        pytest.raises(Exception, match="refused as a timestamptz") as caught,
    ):
        connection.execute(text("SELECT :at"), {"at": NAIVE})

    assert isinstance(caught.value.orig, psycopg.DataError)  # type: ignore[attr-defined]  # SQLAlchemy's DBAPIError
