"""ensure_utc, format_utc, parse_utc and the Pydantic field."""

import zoneinfo
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from backend.utc import UtcField, ensure_utc, format_utc, parse_utc

ZONES = [zoneinfo.ZoneInfo(key) for key in sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})]
OFFSETS = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
# Away from the ends by a day, so that every zone can show them.
INSTANTS = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001 - hypothesis puts the zone on
    datetime(9999, 12, 30),  # noqa: DTZ001 - likewise
    timezones=st.sampled_from(ZONES) | OFFSETS,
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(value: datetime) -> int:
    """Count from the epoch in whole numbers, where no rendering and no zone can deceive."""
    return (value - EPOCH) // timedelta(microseconds=1)


@given(INSTANTS)
def test_any_zone_and_fold_becomes_the_same_instant_in_utc(value: datetime) -> None:
    utc = ensure_utc(value)

    assert type(utc) is datetime
    assert utc.tzinfo is UTC
    assert microseconds(utc) == microseconds(value)


@given(INSTANTS)
def test_text_has_27_characters_and_reads_back_the_same(value: datetime) -> None:
    text = format_utc(value)

    assert len(text) == 27
    assert parse_utc(text) == ensure_utc(value)


@given(INSTANTS | INSTANTS.map(lambda value: value.replace(microsecond=0)))
def test_text_is_isoformats_in_utc(value: datetime) -> None:
    utc = ensure_utc(value)

    assert format_utc(value) == utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


@given(INSTANTS, INSTANTS)
def test_texts_sort_as_their_instants(one: datetime, other: datetime) -> None:
    assert (format_utc(one) < format_utc(other)) == (ensure_utc(one) < ensure_utc(other))


def test_two_sides_of_a_fold_are_an_hour_apart() -> None:
    new_york = zoneinfo.ZoneInfo("America/New_York")
    first = datetime(2024, 11, 3, 1, 30, tzinfo=new_york)

    assert ensure_utc(first.replace(fold=1)) - ensure_utc(first) == timedelta(hours=1)


def test_offset_with_seconds_is_kept_to_the_second() -> None:
    """New York's clocks stood 4:56:02 behind until 1883."""
    value = datetime(1880, 1, 1, tzinfo=zoneinfo.ZoneInfo("America/New_York"))

    assert format_utc(value) == "1880-01-01T04:56:02.000000Z"


class NoOffset(tzinfo):
    """Present, and still no answer."""

    def utcoffset(self, _value: datetime | None, /) -> None:
        return None

    dst = tzname = utcoffset


class NotATime(datetime):
    """Behaves as pandas' NaT: a datetime by its type whose offset is itself."""

    def utcoffset(self) -> Any:  # noqa: ANN401 - what NaT answers is no timedelta
        return self


class Nanoseconds(datetime):
    """Behaves as pandas' Timestamp."""

    nanosecond = 1


class Moment(datetime):
    """Behaves as freezegun's and pandas' datetimes do."""


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=2))])
def test_subclass_becomes_a_plain_datetime(zone: tzinfo) -> None:
    """Drivers choose how to send a value by its class."""
    utc = ensure_utc(Moment(2024, 1, 31, 12, tzinfo=zone))

    assert type(utc) is datetime
    assert utc == datetime(2024, 1, 31, 12, tzinfo=zone)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (datetime(2024, 1, 1), ValueError, "without an offset"),  # noqa: DTZ001 - the mistake under test
        (datetime(2024, 1, 1, tzinfo=NoOffset()), ValueError, "without an offset"),
        (NotATime(2024, 1, 1, tzinfo=UTC), ValueError, "without an offset"),
        (Nanoseconds(2024, 1, 1, tzinfo=UTC), ValueError, "nanoseconds"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), ValueError, "outside the years"),
        (datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=2))), ValueError, "outside the years"),
        (date(2024, 1, 1), TypeError, "not date"),
        ("2024-01-01T00:00:00Z", TypeError, "not str"),
        (1_700_000_000, TypeError, "not int"),
        (None, TypeError, "not NoneType"),
    ],
)
def test_what_is_no_instant_is_refused(value: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401 - anything at all
    for function in (ensure_utc, format_utc):
        with pytest.raises(error, match=message):
            function(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-31T12:00:00Z", "2024-01-31T12:00:00.000000Z"),
        ("2024-01-31t12:00:00.1z", "2024-01-31T12:00:00.100000Z"),
        ("2024-01-31T12:00:00.123456+05:45", "2024-01-31T06:15:00.123456Z"),
        ("2024-01-31T12:00:00-00:00", "2024-01-31T12:00:00.000000Z"),
        ("0001-01-01T00:00:00-14:00", "0001-01-01T14:00:00.000000Z"),
    ],
)
def test_rfc_3339_is_read(text: str, expected: str) -> None:
    assert format_utc(parse_utc(text)) == expected


REFUSED_TEXTS = [
    ("", "^send an RFC 3339"),
    ("2024-01-31", "^send an RFC 3339"),
    ("20240131", "^send an RFC 3339"),
    ("1700000000", "^send an RFC 3339"),
    ("2024-01-31T12:00:00", "^send an RFC 3339"),
    ("2024-01-31T12:00Z", "^send an RFC 3339"),
    ("2024-01-31 12:00:00Z", "^send an RFC 3339"),
    ("2024-W05-3T12:00:00Z", "^send an RFC 3339"),
    ("2024-01-31T12:00:00.1234567Z", "at most six fractional digits"),
    ("2024-01-31T12:00:00,5Z", "^send an RFC 3339"),
    ("2024-01-31T12:00:00.Z", "^send an RFC 3339"),
    ("2024-01-31T12:00:00+0545", "^send an RFC 3339"),
    ("2024-01-31T12:00:00+24:00", "^send an RFC 3339"),
    ("2024-01-31T12:00:00+05:45:10", "^send an RFC 3339"),
    ("2024-01-31T24:00:00Z", "^send an RFC 3339"),
    ("2024-01-31T12:00:00Z\n", "^send an RFC 3339"),
    ("２０２４-01-31T12:00:00Z", "^send an RFC 3339"),  # noqa: RUF001 - digits of another script
    ("2024-02-30T12:00:00Z", "no instant"),
    ("2024-01-31T23:59:60Z", "no instant"),
    ("0000-01-01T00:00:00Z", "no instant"),
    ("0001-01-01T00:00:00+14:00", "outside the years"),
    ("2024-01-31T12:00:00 05:00", "%2B"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED_TEXTS)
def test_other_text_is_refused_and_told_what_to_send(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_utc(text)


@given(st.text())
def test_no_text_raises_anything_but_value_error(text: str) -> None:
    try:
        value = parse_utc(text)
    except ValueError:
        return
    assert value.tzinfo is UTC


class Event(BaseModel):
    at: UtcField


@pytest.mark.parametrize("value", [text for text, _ in REFUSED_TEXTS])
def test_field_refuses_the_same_texts_with_a_reason(value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Event.model_validate({"at": value})

    (error,) = caught.value.errors()
    assert error["type"] == "utc_instant"


NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - the mistake under test


@pytest.mark.parametrize("value", [1_700_000_000, 1.5, True, None, {}, NAIVE, date(2024, 1, 1)])
def test_field_refuses_what_is_no_text_and_no_instant(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Event.model_validate({"at": value})

    (error,) = caught.value.errors()
    assert error["type"] == "utc_instant"


def test_field_shows_27_characters_in_json() -> None:
    event = Event(at=datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Asia/Kathmandu")))

    assert event.model_dump_json() == '{"at":"2024-06-30T18:15:00.000000Z"}'
    assert event.at.tzinfo is UTC
    assert event.model_dump() == {"at": datetime(2024, 6, 30, 18, 15, tzinfo=UTC)}


def test_fields_schema_says_date_time_both_ways() -> None:
    adapter = TypeAdapter(UtcField)
    for mode in ("validation", "serialization"):
        schema = adapter.json_schema(mode=mode)
        assert (schema["type"], schema["format"]) == ("string", "date-time")
        assert "pattern" in schema
