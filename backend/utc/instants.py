"""Values and their one text."""

import re
from datetime import UTC, datetime, timedelta

from pydantic_core import SchemaSerializer, core_schema

# The grammar of RFC 3339, section 5.6, with at most the six fractional digits that Python and PostgreSQL both
# keep: a seventh would be cut by the one and rounded by the other. ASCII digits alone; `\d` would take every
# script's. The hour is spelled out because newer Pythons read 24:00 as the next midnight and older ones do
# not.
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

    Raises TypeError for anything but a datetime, and ValueError for one that has no offset, is no instant
    (pandas' NaT), has nanoseconds, or lies outside the years 1 to 9999 once it is in UTC.
    """
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    if not isinstance(value, datetime):
        raise TypeError(f"a datetime is needed here, not {type(value).__name__}")
    # A tzinfo may be present and still answer None, so it is the offset that is asked for. NaT answers
    # itself.
    if not isinstance(value.utcoffset(), timedelta):
        raise ValueError(  # noqa: TRY004 - its type is right
            "a datetime without an offset from UTC names no instant"
        )
    if getattr(value, "nanosecond", 0):
        raise ValueError("nanoseconds would be lost: PostgreSQL keeps microseconds")
    try:
        utc = value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC this instant lies outside the years 1 to 9999") from error
    # A subclass keeps its class through astimezone, and drivers choose how to send a value by its class.
    return datetime(
        utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=UTC
    )


def format_utc(value: datetime) -> str:
    """Return `YYYY-MM-DDTHH:MM:SS.ffffffZ`: always 27 characters, so that texts sort as their instants do.

    Raises what `ensure_utc` raises.
    """
    if type(value) is not datetime or value.tzinfo is not UTC:
        value = ensure_utc(value)
    # Pydantic's rendering takes a third of the time of isoformat, but leaves the fraction out of a whole second.
    # Responses are full of these calls, so that what is left to do is done here and not in a function of its own.
    text: str = _render(value, mode="json")
    return text if len(text) == _WIDTH else f"{text[:19]}{_WHOLE_SECOND}"


def parse_utc(text: str) -> datetime:
    """Read an RFC 3339 date-time that says its offset; ValueError tells what to send instead.

    A leap second (`:60`) is refused, because neither Python nor PostgreSQL can keep one.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError(_refusal(text))
    date, time, fraction, offset = match.groups()
    # Python 3.11's fromisoformat wants three or six fractional digits, an upper case T and a numeric offset
    # or Z.
    fraction = (fraction or ".").ljust(7, "0")
    try:
        return ensure_utc(datetime.fromisoformat(f"{date}T{time}{fraction}{offset.upper()}"))
    except ValueError as error:
        raise ValueError(f"this is no instant: {error}; send {_WANTED}, {_EXAMPLE}") from error


def _refusal(text: str) -> str:
    # In a query string a plus is a space, so an offset that was sent without escaping arrives in this shape.
    if _RFC_3339.fullmatch(text.replace(" ", "+")):
        return "a plus in a query string arrives as a space: send it as %2B, or send the instant with Z"
    return f"send {_WANTED}, {_EXAMPLE}"
