"""psycopg dumpers that send only aware datetimes as timestamptz, on raw cursors and in COPY too."""

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
    """Refuse every datetime that `ensure_utc` refuses, with psycopg's DataError.

    psycopg sends a naive datetime as a `timestamp`, which PostgreSQL then reads in the session's zone. It accepts a
    tzinfo whose offset is None, and sends pandas' NaT as the year 48113. If the type is named (COPY after
    `set_types`, arrays and ranges of timestamptz), dates and strings are refused too; otherwise they are sent as a
    date or a string, and PostgreSQL reads them in the pinned session.
    """
    # psycopg uses the dumper that was registered last for %s: the binary one, as in psycopg itself.
    for aware in (_AwareDumper, _AwareBinaryDumper):
        adapters.register_dumper(datetime, aware)
    for naive in (_NaiveDumper, _NaiveBinaryDumper):
        adapters.register_dumper(None, naive)
    adapters.register_dumper(TimestamptzRange, _RangeBinaryDumper)
    adapters.register_dumper(TimestamptzMultirange, _MultirangeBinaryDumper)


def _checked(value: datetime) -> datetime:
    try:
        return ensure_utc(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot be sent as a timestamptz: {error}") from error


class _AwareDumper(Dumper):
    oid = types["timestamptz"].oid

    def dump(self, obj: datetime) -> bytes:
        return str(_checked(obj)).encode()


class _AwareBinaryDumper(Dumper):
    format = Format.BINARY
    oid = types["timestamptz"].oid

    def dump(self, obj: datetime) -> bytes:
        return _pack((_checked(obj) - _EPOCH) // _MICROSECOND)


class _NaiveDumper(Dumper):
    oid = types["timestamp"].oid

    def dump(self, _obj: datetime) -> bytes:
        # In binary COPY, a timestamp has the same bytes as a timestamptz, so PostgreSQL could not see the mistake.
        raise DataError("a timestamp without time zone is ambiguous: name the type timestamptz")


class _NaiveBinaryDumper(_NaiveDumper):
    format = Format.BINARY


# In binary format, psycopg adds the session's zone to the naive bounds of ranges before it calls our dumper.
def _check(range_: Range[datetime]) -> None:
    for bound in (range_.lower, range_.upper):
        if bound is not None:
            _checked(bound)


class _RangeBinaryDumper(TimestamptzRangeBinaryDumper):
    def dump(self, obj: Range[datetime]) -> Buffer | None:
        _check(obj)
        return super().dump(obj)


class _MultirangeBinaryDumper(TimestamptzMultirangeBinaryDumper):
    def dump(self, obj: Multirange[datetime]) -> Buffer | None:
        for range_ in obj:
            _check(range_)
        return super().dump(obj)
