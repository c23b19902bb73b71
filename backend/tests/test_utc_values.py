"""ensure_utc, format_utc, parse_utc and UtcField."""

import zoneinfo
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from backend.utc import UtcField, ensure_utc, format_utc, parse_utc
from devtools.utc_check.cases import (
    CHANGES,
    EPOCH,
    ODD,
    REFUSED_DATETIMES,
    REFUSED_OTHERS,
    Value,
    instant,
)

MESSAGES = {
    "naive": "without an offset",
    "no offset": "without an offset",
    "not a time": "without an offset",
    "nanoseconds": "nanoseconds would be lost",
    "before year 1": "outside the years",
    "after year 9999": "outside the years",
    "date": "expected a datetime, not date",
    "text": "expected a datetime, not str",
    "number": "expected a datetime, not int",
}
ACCEPTED_TEXTS: dict[str, int] = {
    "2024-01-31T12:00:00Z": 1_706_702_400_000_000,
    "2024-01-31t12:00:00.1z": 1_706_702_400_100_000,
    "2024-01-31T12:00:00.123456+05:45": 1_706_681_700_123_456,
    "2024-01-31T12:00:00-00:00": 1_706_702_400_000_000,
    "2024-11-03T01:30:00-04:00": 1_730_611_800_000_000,
    "2024-11-03T01:30:00-05:00": 1_730_615_400_000_000,
    "0001-01-01T00:00:00-14:00": -62_135_546_400_000_000,
}
"""RFC 3339 texts, with their microseconds since 1970."""
REFUSED_TEXTS: dict[str, tuple[str, ...]] = {
    "send an RFC 3339 date-time": (
        "", "2024-01-31", "20240131", "1700000000", "2024-01-31T12:00:00", "2024-01-31T12:00Z",
        "2024-01-31 12:00:00Z", "2024-W05-3T12:00:00Z", "2024-01-31T12:00:00,5Z", "2024-01-31T12:00:00.Z",
        "2024-01-31T12:00:00+0545", "2024-01-31T12:00:00+24:00", "2024-01-31T12:00:00+05:45:10",
        "2024-01-31T24:00:00Z", "2024-01-31T12:00:00Z\n",
        "２０２４-01-31T12:00:00Z",  # noqa: RUF001 - digits of another script
    ),
    "at most six fractional digits": ("2024-01-31T12:00:00.1234567Z",),
    "does not exist": ("2024-02-30T12:00:00Z", "2024-01-31T23:59:60Z", "0000-01-01T00:00:00Z"),
    "outside the years 1 to 9999": ("0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-02:00"),
    "send it as %2B": ("2024-01-31T12:00:00 05:00",),
}  # fmt: skip
"""Texts to refuse, by words of the error message."""
REFUSED_JSON: tuple[object, ...] = (1_700_000_000, 1.5, True, None, {})
REFUSED = [(text, words) for words, texts in REFUSED_TEXTS.items() for text in texts]
ZONES = [zoneinfo.ZoneInfo(key) for key in sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})]
FEW = settings(max_examples=50, deadline=None, derandomize=True)
OFFSETS = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
# A day away from both ends of the range, so that every zone can show the value.
AWARE = st.builds(
    lambda at, fold: at.replace(fold=fold),
    st.datetimes(
        datetime(1, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
        datetime(9999, 12, 30),  # noqa: DTZ001 - hypothesis adds the zone
        timezones=st.sampled_from(ZONES) | OFFSETS,
    ),
    st.integers(0, 1),
)


def microseconds(value: datetime) -> int:
    """Return the microseconds since 1970, computed from the local time and its offset."""
    return (value.replace(tzinfo=UTC, fold=0) - EPOCH - value.utcoffset()) // timedelta(microseconds=1)  # type: ignore[operator]  # it is aware


@FEW
@given(AWARE)
def test_any_zone_and_fold_becomes_the_same_instant_in_utc(value: datetime) -> None:
    utc = ensure_utc(value)

    assert (type(utc), utc.tzinfo) == (datetime, UTC)
    assert microseconds(utc) == microseconds(value)


@FEW
@given(AWARE | AWARE.map(lambda value: value.replace(microsecond=0)))
def test_text_is_isoformat_in_utc_and_parses_to_the_same(value: datetime) -> None:
    utc, text = ensure_utc(value), format_utc(value)

    assert text == utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    assert parse_utc(text) == utc


@FEW
@given(AWARE, AWARE)
def test_texts_sort_by_time(one: datetime, other: datetime) -> None:
    assert (format_utc(one) < format_utc(other)) == (ensure_utc(one) < ensure_utc(other))


@pytest.mark.parametrize("value", ODD, ids=str)
def test_gaps_and_offsets_with_seconds_are_exact(value: Value) -> None:
    assert ensure_utc(value.held) == instant(value.microseconds)


@pytest.mark.parametrize("zone", CHANGES)
def test_clocks_really_change_at_the_instants_of_the_cases(zone: str) -> None:
    """Otherwise the values around the changes would prove nothing."""
    for at, shift in CHANGES[zone]:
        before, after = (instant(s * 1_000_000, zoneinfo.ZoneInfo(zone)).utcoffset() for s in (at - 1, at))
        assert after - before == timedelta(seconds=shift)  # type: ignore[operator]  # a zone has an offset


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=2))])
def test_subclass_becomes_a_plain_datetime(zone: tzinfo) -> None:
    """Drivers choose how to send a value by its class."""

    class Frozen(datetime):
        """Behaves like the datetimes of freezegun and pandas."""

    utc = ensure_utc(Frozen(2024, 1, 31, 12, tzinfo=zone))

    assert type(utc) is datetime
    assert utc == datetime(2024, 1, 31, 12, tzinfo=zone)


@pytest.mark.parametrize(("name", "value"), (REFUSED_DATETIMES | REFUSED_OTHERS).items())
def test_value_that_is_not_an_aware_datetime_is_refused(name: str, value: Any) -> None:
    error = TypeError if name in REFUSED_OTHERS else ValueError
    for function in (ensure_utc, format_utc):
        with pytest.raises(error, match=MESSAGES[name]):
            function(value)


@pytest.mark.parametrize(("text", "number"), ACCEPTED_TEXTS.items())
def test_rfc_3339_is_parsed(text: str, number: int) -> None:
    assert parse_utc(text) == instant(number)
    assert parse_utc(text).tzinfo is UTC


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_other_text_is_refused_and_the_message_says_what_to_send(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_utc(text)


@FEW
@given(st.sampled_from([*ACCEPTED_TEXTS]), st.integers(0, 30), st.sampled_from("09٣.:-+ TZz\0"))
def test_no_text_raises_anything_but_value_error(text: str, place: int, other: str) -> None:
    try:
        value = parse_utc(text[:place] + other + text[place + 1 :])
    except ValueError:
        return
    assert value.tzinfo is UTC


class Event(BaseModel):
    at: UtcField


@pytest.mark.parametrize(
    ("value", "words"),
    [("2024-01-31", "send an RFC 3339"), (REFUSED_DATETIMES["naive"], "without an offset")]
    + [(value, "send an RFC 3339") for value in (*REFUSED_JSON, date(2024, 1, 1))],
)
def test_field_refuses_with_the_reason(value: object, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Event.model_validate({"at": value})

    (error,) = caught.value.errors()
    assert (error["type"], words in error["msg"]) == ("utc_instant", True)


def test_field_shows_27_characters_in_json_and_a_datetime_in_python() -> None:
    event = Event(at=datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Asia/Kathmandu")))

    assert event.model_dump_json() == '{"at":"2024-06-30T18:15:00.000000Z"}'
    assert event.at.tzinfo is UTC
    assert event.model_dump() == {"at": datetime(2024, 6, 30, 18, 15, tzinfo=UTC)}


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_schema_of_the_field_is_a_date_time_with_a_pattern(mode: Any) -> None:
    schema = TypeAdapter(UtcField).json_schema(mode=mode)

    assert (schema["type"], schema["format"]) == ("string", "date-time")
    assert "pattern" in schema
