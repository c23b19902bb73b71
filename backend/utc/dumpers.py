"""What the driver takes for a timestamptz: instants, on raw cursors and in COPY too."""

import struct
from datetime import UTC, datetime, timedelta

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.errors import DataError
from psycopg.postgres import types
from psycopg.pq import Format
from psycopg.types.multirange import Multirange, TimestamptzMultirange, TimestamptzMultirangeBinaryDumper
from psycopg.types.range import Range, TimestamptzRange, TimestamptzRangeBinaryDumper

from backend.utc.instants import ensure_utc

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_MICROSECOND = timedelta(microseconds=1)
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
    format = Format.BINARY
    oid = types["timestamptz"].oid

    def dump(self, obj: datetime) -> bytes:
        return _pack((_instant(obj) - _EPOCH) // _MICROSECOND)


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
