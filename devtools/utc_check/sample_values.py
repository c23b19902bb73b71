"""The instants that are written: those at which clocks misbehave, the ends of what can be kept, and random ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from random import Random
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND = 1_000_000

LOWEST = -62_135_510_400 * SECOND
"""0001-01-02T00:00:00Z: a day after the first that Python knows, so that every zone can show it."""
HIGHEST = 253_402_214_400 * SECOND - 1
"""The last microsecond before 9999-12-31T00:00:00Z, a day before the last."""

RANDOM_VALUES = 24
# The years that are searched for a zone's changes: before the first are the odd offsets of local mean time.
_SEARCHED = (datetime(1880, 1, 1, tzinfo=UTC), datetime(2037, 1, 1, tzinfo=UTC))
_STEP = timedelta(days=28)


@dataclass(frozen=True)
class Value:
    """An instant as somebody holds it, and what it is beyond dispute."""

    held: datetime
    """Aware, in whatever zone; `fold` says which side of a repeated hour."""
    microseconds: int
    """From the epoch of 1970, counted before any zone came into it."""

    def __str__(self) -> str:
        zone = f" {self.held.tzinfo.key}" if isinstance(self.held.tzinfo, ZoneInfo) else ""
        return f"{self.held.isoformat()}{zone}{' fold=1' if self.held.fold else ''}"


def catalogue(zone: str, seed: int) -> list[Value]:
    """Return the values of a round in this zone; the same seed gives the same ones."""
    source = Random(f"{seed} {zone}")  # noqa: S311 - what can be repeated is what is wanted
    return [*_edges(), *_changes(ZoneInfo(zone)), *_random(ZoneInfo(zone), source)]


def instant(microseconds: int, zone: tzinfo = UTC) -> datetime:
    """Return the instant that is so many microseconds from the epoch. Raises OverflowError outside of 1 to 9999."""
    return (EPOCH + timedelta(microseconds=microseconds)).astimezone(zone)


def canonical(microseconds: int) -> str:
    """Render an instant as the API must, by arithmetic alone."""
    return f"{instant(microseconds).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def microseconds_of(value: datetime) -> int:
    """Count from the epoch. Both sides of a fold differ, for what is subtracted is the offset that each has."""
    offset = value.utcoffset()
    if offset is None:
        raise ValueError("a datetime without an offset from UTC names no instant")
    return (value.replace(tzinfo=UTC, fold=0) - EPOCH - offset) // MICROSECOND


def _edges() -> Iterator[Value]:
    for microseconds in (
        LOWEST,
        LOWEST + 1,
        HIGHEST,
        HIGHEST - SECOND + 1,
        -1,
        0,
        1,
        999_999,
        946_684_800 * SECOND - 1,  # PostgreSQL counts from 2000-01-01
        946_684_800 * SECOND,
        2**31 * SECOND - 1,
        2**53 + 1,  # beyond it a double has no odd numbers
    ):
        yield Value(instant(microseconds), microseconds)
    for seconds in (14 * 3600, -12 * 3600, 20700, 1172, -86340, 86399, -1):
        zone = timezone(timedelta(seconds=seconds))
        yield Value(instant(1_700_000_000_123_456, zone), 1_700_000_000_123_456)
    yield Value(instant(HIGHEST, timezone(timedelta(hours=14))), HIGHEST)
    yield Value(instant(LOWEST, timezone(timedelta(hours=-14))), LOWEST)
    # Offsets with seconds: New York until 1883, Liberia until 1972.
    yield Value(datetime(1880, 1, 1, tzinfo=ZoneInfo("America/New_York")), -2_840_123_038 * SECOND)
    yield Value(datetime(1971, 7, 1, 12, tzinfo=ZoneInfo("Africa/Monrovia")), 47_220_270 * SECOND)


def _changes(zone: ZoneInfo) -> Iterator[Value]:
    """Yield what lies around the zone's first change, its largest, and its last ones forward and back."""
    changes = list(_transitions(zone))
    if not changes:
        return
    forward = [change for change in changes if change[1] > timedelta(0)]
    back = [change for change in changes if change[1] < timedelta(0)]
    chosen = {changes[0], max(changes, key=lambda change: abs(change[1])), *forward[-1:], *back[-1:]}
    for at, shift in sorted(chosen):
        half = abs(shift // MICROSECOND) // 2
        for distance in (-half, -1, 0, 1, half):
            yield Value(instant(at + distance, zone), at + distance)
        if shift > timedelta(0):
            # A wall clock that never showed this: Python takes the offset before the change, or after it.
            missing = instant(at, zone).replace(tzinfo=None) - shift / 2
            for fold in (0, 1):
                held = missing.replace(tzinfo=zone, fold=fold)
                yield Value(held, microseconds_of(held))


def _transitions(zone: ZoneInfo) -> Iterator[tuple[int, timedelta]]:
    """Yield when the zone's offset changed, to the second, and by how much."""
    low, end = _SEARCHED
    while low < end:
        high = low + _STEP
        before, after = _offset(low, zone), _offset(high, zone)
        if before != after:
            left, right = int(low.timestamp()), int(high.timestamp())
            while right - left > 1:
                middle = (left + right) // 2
                if _offset(datetime.fromtimestamp(middle, UTC), zone) == before:
                    left = middle
                else:
                    right = middle
            yield right * SECOND, after - before
        low = high


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)


def _random(zone: ZoneInfo, source: Random) -> Iterator[Value]:
    ranges: Sequence[tuple[int, int]] = ((LOWEST, HIGHEST), (0, 2**31 * SECOND))
    for number in range(RANDOM_VALUES):
        microseconds = source.randrange(*ranges[number % 2])
        offset = timezone(timedelta(seconds=source.randrange(-86_399, 86_400)))
        yield Value(instant(microseconds, source.choice([zone, offset, UTC])), microseconds)
