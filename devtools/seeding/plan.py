"""What a data set is made from, and when things happen in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

UNTIL = datetime(2026, 10, 30, 21, tzinfo=UTC)  # a Friday's afternoon

# How busy an hour is, in UTC, where people work from early morning on between New York and Los Angeles; at night
# there is what runs by itself.
_WEEKDAY = (16, 6, 3, 2, 2, 2, 2, 3, 4, 8, 14, 30, 48, 66, 78, 84, 84, 80, 82, 78, 66, 48, 32, 22)
_SATURDAY = tuple(weight // 5 + 1 for weight in _WEEKDAY)
_SUNDAY = tuple(weight // 16 + 1 for weight in _WEEKDAY)
_WEEK = (*[_WEEKDAY] * 5, _SATURDAY, _SUNDAY)
_HOUR = 3_600_000_000  # microseconds
_JITTER = 20  # bits


@dataclass(frozen=True)
class Plan:
    """What a data set follows from: of equal plans the rows are equal, to the byte."""

    seed: int = 1
    scale: int = 1
    until: datetime = UNTIL
    """When all of it has happened, in UTC."""

    def random(self, purpose: str) -> Random:
        """Return a source of numbers for one purpose, so that a change of one table leaves the others as they were.

        Draw by `getrandbits` and `random`: what else it has may change from one Python to the next.
        """
        return Random(f"{self.seed}/{purpose}")  # noqa: S311  nothing secret is made of it


def spread(count: int, start: datetime, end: datetime, random: Random) -> Iterator[datetime]:
    """Yield so many instants between the two, in order, as dense in each hour as it is busy."""
    hours = (end - start) // timedelta(hours=1)
    starts = [start + timedelta(hours=hour) for hour in range(hours)]
    weights = [_WEEK[at.weekday()][at.hour] for at in starts]
    total, passed, made = sum(weights), 0, 0
    for at, weight in zip(starts, weights, strict=True):
        passed += weight
        here = count * passed // total - made
        made += here
        for number in range(here):
            # Whole numbers alone, which are the same everywhere.
            drawn = (number << _JITTER) + random.getrandbits(_JITTER)
            yield at + timedelta(microseconds=drawn * _HOUR // (here << _JITTER))
