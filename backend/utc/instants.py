"""Convert datetimes to UTC, and format and parse their text."""

import re
from datetime import UTC, datetime, timedelta

from pydantic_core import SchemaSerializer, core_schema

# The grammar of RFC 3339, section 5.6, with at most six fractional digits: Python cuts a seventh off, PostgreSQL rounds
# it. ASCII digits only, since `\d` matches those of every script. The hour is spelled out because newer Pythons read
# 24:00 as the next midnight and older ones refuse it.
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]((?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2})(\.[0-9]{1,6})?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_WIDTH = len("YYYY-MM-DDTHH:MM:SS.ffffffZ")
_WHOLE_SECOND = ".000000Z"
_render = SchemaSerializer(core_schema.datetime_schema()).to_python
_WANTED = "an RFC 3339 date-time with Z or an offset and at most six fractional digits"
_EXAMPLE = "such as 2024-01-31T12:00:00Z"


def ensure_utc(value: datetime) -> datetime:
    """Return the same instant as a plain `datetime` whose tzinfo is `timezone.utc`.

    Raises TypeError for anything but a datetime, and ValueError for a datetime that has no offset (such as pandas'
    NaT), has nanoseconds, or is outside the years 1 to 9999 in UTC.
    """
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    if not isinstance(value, datetime):
        raise TypeError(f"expected a datetime, not {type(value).__name__}")
    # A tzinfo may return None for the offset, and NaT returns itself.
    if not isinstance(value.utcoffset(), timedelta):
        raise ValueError("a datetime without an offset from UTC is ambiguous")  # noqa: TRY004 - its type is right
    if getattr(value, "nanosecond", 0):
        raise ValueError("nanoseconds would be lost: PostgreSQL stores microseconds")
    try:
        utc = value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC this is outside the years 1 to 9999") from error
    # astimezone keeps a subclass, and drivers choose how to send a value by its class.
    return datetime(
        utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=UTC
    )


def format_utc(value: datetime) -> str:
    """Return `YYYY-MM-DDTHH:MM:SS.ffffffZ`: always 27 characters, so that texts sort by time.

    Raises what `ensure_utc` raises.
    """
    # Pydantic's serializer takes a third of the time of isoformat, but omits a fraction that is zero.
    text: str = _render(ensure_utc(value), mode="json")
    return text if len(text) == _WIDTH else f"{text[:19]}{_WHOLE_SECOND}"


def parse_utc(text: str) -> datetime:
    """Parse an RFC 3339 date-time with an offset. The message of its ValueError says what to send instead.

    A leap second (`:60`) is refused, because neither Python nor PostgreSQL can store one.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        # A plus in a query string means a space, so this is how an offset arrives that was not escaped.
        if _RFC_3339.fullmatch(text.replace(" ", "+")):
            raise ValueError("a plus in a query string arrives as a space: send it as %2B, or use Z")
        raise ValueError(f"send {_WANTED}, {_EXAMPLE}")
    date, time, fraction, offset = match.groups()
    # Python 3.11's fromisoformat needs three or six fractional digits, and an upper case T and Z.
    fraction = (fraction or ".").ljust(7, "0")
    try:
        return ensure_utc(datetime.fromisoformat(f"{date}T{time}{fraction}{offset.upper()}"))
    except ValueError as error:
        raise ValueError(f"this date-time does not exist: {error}; send {_WANTED}, {_EXAMPLE}") from error
