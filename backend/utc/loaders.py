"""psycopg loaders that return timestamptz in UTC, regardless of the session's zone at that moment."""

from functools import cache
from typing import cast

from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Loader
from psycopg.postgres import types
from psycopg.pq import Format
from psycopg.types.datetime import TimestamptzBinaryLoader, TimestamptzLoader

_TIMESTAMPTZ = types["timestamptz"].oid


def register(adapters: AdaptersMap) -> None:
    """Load timestamptz in UTC, in text and in binary, also inside arrays, ranges and composites.

    psycopg's own loader returns values in the session's zone: `SET LOCAL` inside a transaction would change the value
    of the same row, two sides of a fold would load as equal, and for a zone that Python does not know it returns UTC.
    Without a connection, the same loader knows no zone and returns `timezone.utc`, at the speed of C code.

    psycopg raises NotImplementedError for text that is not in the ISO DateStyle.
    """
    for loader in (TimestamptzLoader, TimestamptzBinaryLoader):
        adapters.register_loader(_TIMESTAMPTZ, unbound(fastest(loader)))


@cache
def fastest(loader: type[Loader]) -> type[Loader]:
    """Return psycopg's C implementation of its own loader, or the same loader if it does not exist."""
    # The C classes have no public name, but the adapters map, which is public, returns the C class for a Python class.
    scratch = AdaptersMap()
    scratch.register_loader(_TIMESTAMPTZ, loader)
    return cast("type[Loader]", scratch.get_loader(_TIMESTAMPTZ, loader.format))


@cache
def unbound(loader: type[Loader]) -> type[Loader]:
    """Return a class that creates this loader without its connection."""

    # Not a subclass: psycopg's C code is fast only with its own classes.
    class Unbound:
        format = loader.format

        def __new__(cls, oid: int, context: AdaptContext | None = None) -> Loader:  # type: ignore[misc]  # another class on purpose
            # Without a connection, the loader reads every text as ISO: 01/02/0003 would be a day in the year 1.
            is_readable = cls.format is Format.BINARY or _is_iso(context)
            return loader(oid, None if is_readable else context)

    return cast("type[Loader]", Unbound)


def _is_iso(context: AdaptContext | None) -> bool:
    connection = context.connection if context else None
    style = connection.pgconn.parameter_status(b"DateStyle") if connection else None
    return style is None or style.startswith(b"ISO")
