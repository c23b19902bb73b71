"""psycopg dumpers that send only aware datetimes as timestamptz, on raw cursors and in COPY too."""

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
# The key in psycopg's dumper cache for a plain datetime whose tzinfo is `timezone.utc`.
_IN_UTC = (datetime, timezone)
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
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    try:
        return ensure_utc(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot be sent as a timestamptz: {error}") from error


class _AwareDumper(Dumper):
    oid = types["timestamptz"].oid

    def dump(self, obj: datetime) -> bytes:
        return str(_checked(obj)).encode()


class _AwareBinaryDumper(Dumper):
    """Converts to UTC first. A parameter that is in UTC already goes to psycopg's own dumper, which may be C code."""

    format = Format.BINARY
    oid = types["timestamptz"].oid

    # psycopg calls this for every parameter and caches one dumper per key. For values in an array or a range it uses
    # one dumper for all of them, so that dumper has to check every value.
    def get_key(self, obj: datetime, format: PyFormat) -> DumperKey:  # noqa: A002 - psycopg's signature
        is_utc = obj.tzinfo is UTC and self.cls is datetime and format is PyFormat.AUTO
        return _IN_UTC if is_utc else self.cls

    def upgrade(self, obj: datetime, format: PyFormat) -> Dumper:  # noqa: A002, ARG002 - psycopg's signature
        return fastest(DatetimeBinaryDumper)(self.cls)

    def dump(self, obj: datetime) -> bytes:
        return _pack((_checked(obj) - _EPOCH) // _MICROSECOND)


@cache
def fastest(dumper: type[Dumper]) -> type[Dumper]:
    """Return psycopg's C implementation of its own dumper, or the same dumper if it does not exist."""
    # The C classes have no public name, but the adapters map, which is public, returns the C class for a Python class.
    scratch = AdaptersMap()
    scratch.register_dumper(datetime, dumper)
    return cast("type[Dumper]", scratch.get_dumper(datetime, PyFormat.from_pq(dumper.format)))


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
