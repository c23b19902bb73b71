"""What the driver takes for a timestamptz: instants, on raw cursors and in COPY too."""

import struct
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import cast

from psycopg.abc import Buffer, DumperKey
from psycopg.adapt import AdaptersMap, Dumper, PyFormat
from psycopg.errors import DataError
from psycopg.postgres import types
from psycopg.pq import Format
from psycopg.types.datetime import DatetimeBinaryDumper
from psycopg.types.multirange import Multirange, TimestamptzMultirange, TimestamptzMultirangeBinaryDumper
from psycopg.types.range import Range, TimestamptzRange, TimestamptzRangeBinaryDumper

from backend.utc.instants import ensure_utc

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_MICROSECOND = timedelta(microseconds=1)
# The dumpers' key for an exact datetime whose tzinfo is `timezone.utc`.
_IN_UTC = (datetime, timezone)
_pack = struct.Struct("!q").pack


def register(adapters: AdaptersMap) -> None:
    """Refuse here, with psycopg's DataError, every datetime that is no instant.

    psycopg sends a naive datetime as a `timestamp`, which PostgreSQL then reads in the session's zone; it
    takes a tzinfo that answers None for an offset, and pandas' NaT for the year 48113. Where a type is named
    (COPY after `set_types`, arrays and ranges of timestamptz), dates and texts are refused as well; elsewhere
    they are sent as what they are, and mean what PostgreSQL makes of them in the pinned session.
    """
    # The one that comes last is what %s takes: binary, as in psycopg.
    for instant in (_InstantDumper, _InstantBinaryDumper):
        adapters.register_dumper(datetime, instant)
    for naive in (_NaiveDumper, _NaiveBinaryDumper):
        adapters.register_dumper(None, naive)
    adapters.register_dumper(TimestamptzRange, _RangeBinaryDumper)
    adapters.register_dumper(TimestamptzMultirange, _MultirangeBinaryDumper)


def _instant(value: datetime) -> datetime:
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    try:
        return ensure_utc(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"refused as a timestamptz: {error}") from error


class _InstantDumper(Dumper):
    oid = types["timestamptz"].oid

    def dump(self, obj: datetime) -> bytes:
        return str(_instant(obj)).encode()


class _InstantBinaryDumper(Dumper):
    """Sends an instant; a parameter that is in UTC already by psycopg's own dumper, which may be C."""

    format = Format.BINARY
    oid = types["timestamptz"].oid

    # psycopg asks this of every parameter, and keeps one dumper a key: where nothing is to be done, it costs one call.
    # For what lies in an array or a range it names a format, and takes one dumper for all, whose checks are needed.
    def get_key(self, obj: datetime, format: PyFormat) -> DumperKey:  # noqa: A002 - psycopg's signature
        is_ready = obj.tzinfo is UTC and self.cls is datetime and format is PyFormat.AUTO
        return _IN_UTC if is_ready else self.cls

    def upgrade(self, obj: datetime, format: PyFormat) -> Dumper:  # noqa: A002, ARG002 - psycopg's signature
        return fastest(DatetimeBinaryDumper)(self.cls)

    def dump(self, obj: datetime) -> bytes:
        return _pack((_instant(obj) - _EPOCH) // _MICROSECOND)


@cache
def fastest(dumper: type[Dumper]) -> type[Dumper]:
    """Return psycopg's C implementation of its own dumper, or the same dumper where it has none."""
    # The exchange is made by a map of adapters, which is public; the C classes have no public name.
    scratch = AdaptersMap()
    scratch.register_dumper(datetime, dumper)
    return cast("type[Dumper]", scratch.get_dumper(datetime, PyFormat.from_pq(dumper.format)))


class _NaiveDumper(Dumper):
    oid = types["timestamp"].oid

    def dump(self, _obj: datetime) -> bytes:
        # In binary COPY a timestamp has the bytes of a timestamptz, and lands in one without a question.
        raise DataError("a timestamp without time zone holds no instant: name the type timestamptz")


class _NaiveBinaryDumper(_NaiveDumper):
    format = Format.BINARY


# In binary psycopg puts the session's zone on the naive bounds of these two before any dumper of instants
# sees them.
def _check(range_: Range[datetime]) -> None:
    for bound in (range_.lower, range_.upper):
        if bound is not None:
            _instant(bound)


class _RangeBinaryDumper(TimestamptzRangeBinaryDumper):
    def dump(self, obj: Range[datetime]) -> Buffer | None:
        _check(obj)
        return super().dump(obj)


class _MultirangeBinaryDumper(TimestamptzMultirangeBinaryDumper):
    def dump(self, obj: Multirange[datetime]) -> Buffer | None:
        for range_ in obj:
            _check(range_)
        return super().dump(obj)
