"""The values that the proof and the tests share: timestamps to write and values to refuse."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000

CHANGES = {
    "America/New_York": ((-2_717_650_800, -238), (1_710_054_000, 3600), (1_730_613_600, -3600)),
    "Australia/Lord_Howe": ((1_712_415_600, -1800), (1_728_142_200, 1800)),
    "Pacific/Apia": ((1_301_752_800, -3600), (1_325_239_200, 86_400)),
}
"""Zones and the changes of their offsets: the time in seconds since 1970, and the shift. Apia skipped a day."""
ZONES = tuple(CHANGES)
LOWEST, HIGHEST = -62_135_510_400 * SECOND, 253_402_214_400 * SECOND - 1
"""The first and the last value that the range of a column allows: 0001-01-02 to just before 9999-12-31."""
OUT_OF_RANGE = (
    "infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "0001-01-01 23:59:59.999999+00",
    "9999-12-31 00:00:00+00", "10000-01-01 00:00:00+00",
)  # fmt: skip
IN_RANGE = "2024-01-31 12:00:00+00"


class NoOffset(tzinfo):
    """A tzinfo that returns None for the offset."""

    def utcoffset(self, _value: datetime | None, /) -> None:
        return None

    dst = tzname = utcoffset


class NotATime(datetime):
    """Behaves like pandas' NaT: it is a datetime whose offset is the object itself."""

    def utcoffset(self) -> Any:  # noqa: ANN401 - not a timedelta
        return self


class Nanoseconds(datetime):
    """Behaves like pandas' Timestamp."""

    nanosecond = 1


REFUSED_DATETIMES: dict[str, datetime] = {
    "naive": datetime(2024, 7, 1, 12),  # noqa: DTZ001 - the mistake to refuse
    "no offset": datetime(2024, 7, 1, 12, tzinfo=NoOffset()),
    "not a time": NotATime(2024, 7, 1, 12, tzinfo=UTC),
    "nanoseconds": Nanoseconds(2024, 7, 1, 12, tzinfo=UTC),
    "before year 1": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    "after year 9999": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2))),
}
REFUSED_OTHERS = {"date": date(2024, 7, 1), "text": "2024-07-01T12:00:00Z", "number": 1_700_000_000}


@dataclass(frozen=True)
class Value:
    """An instant as a caller's datetime, in any zone and on either side of a fold, and as microseconds since 1970."""

    held: datetime
    microseconds: int

    def __str__(self) -> str:
        zone = f" {self.held.tzinfo}" if isinstance(self.held.tzinfo, ZoneInfo) else ""
        return f"{self.held.isoformat()}{zone}{' fold=1' if self.held.fold else ''}"


def instant(microseconds: int, zone: tzinfo = UTC) -> datetime:
    return (EPOCH + timedelta(microseconds=microseconds)).astimezone(zone)


def canonical(microseconds: int) -> str:
    """Return the text that the API must show, computed without the code under test."""
    return f"{instant(microseconds).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def show(microseconds: int) -> str:
    is_in_range = LOWEST <= microseconds <= HIGHEST
    return f"{microseconds} ({canonical(microseconds)})" if is_in_range else str(microseconds)


_NEW_YORK = ZoneInfo("America/New_York")
ODD = (
    # New York's clocks skipped this time; `fold` decides whether Python uses the offset before or after.
    Value(datetime(2024, 3, 10, 2, 30, tzinfo=_NEW_YORK), 1_710_055_800 * SECOND),
    Value(datetime(2024, 3, 10, 2, 30, tzinfo=_NEW_YORK, fold=1), 1_710_052_200 * SECOND),
    # Offsets with seconds: New York until 1883, Liberia until 1972.
    Value(datetime(1880, 1, 1, tzinfo=_NEW_YORK), -2_840_123_038 * SECOND),
    Value(datetime(1971, 7, 1, 12, tzinfo=ZoneInfo("Africa/Monrovia")), 47_220_270 * SECOND),
)
COMMON_VALUES = [*ODD] + [
    Value(instant(microseconds, timezone(timedelta(seconds=offset))), microseconds)
    for microseconds, offset in (
        (LOWEST, 0), (LOWEST, -14 * 3600), (HIGHEST, 0), (HIGHEST, 14 * 3600), (-1, 0),
        (946_684_800 * SECOND - 1, 20_700),  # PostgreSQL counts from 2000-01-01
        (2**53 + 1, -86_399),  # cannot be represented as a double
    )
]  # fmt: skip


def zone_values(zone: str, seed: int) -> list[Value]:
    """Return values around the changes of this zone, and random values from the seed."""
    source = Random(f"{seed} {zone}")  # noqa: S311 - it has to be repeatable
    pairs: list[tuple[int, tzinfo]] = []
    for at, shift in CHANGES[zone]:
        half = abs(shift) * SECOND // 2
        pairs += [(at * SECOND + distance, ZoneInfo(zone)) for distance in (-half, -1, 0, half)]
    for tz in (UTC, ZoneInfo(zone), timezone(timedelta(seconds=source.randrange(-86_399, 86_400)))):
        pairs.append((source.randrange(LOWEST, HIGHEST), tz))
    return [Value(instant(number, tz), number) for number, tz in pairs]
