"""What the driver gives for a timestamptz: UTC, whatever the session's zone is at that moment."""

from functools import cache
from typing import cast

from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Loader
from psycopg.postgres import types
from psycopg.pq import Format
from psycopg.types.datetime import TimestamptzBinaryLoader, TimestamptzLoader

_TIMESTAMPTZ = types["timestamptz"].oid


def register(adapters: AdaptersMap) -> None:
    """Make timestamptz load in UTC here, in text and in binary; arrays, ranges and composites follow.

    psycopg's own loader asks the connection for the session's zone and gives values in it: `SET LOCAL` in
    mid-transaction would change what the same row looks like, and two sides of a fold would load as equal. A
    zone that Python does not know it takes for UTC without a word. Bound to no connection it has no zone to
    ask for, and gives `timezone.utc` at the speed of C.

    Text that is not in the ISO DateStyle is refused by psycopg with NotImplementedError.
    """
    for loader in (TimestamptzLoader, TimestamptzBinaryLoader):
        adapters.register_loader(_TIMESTAMPTZ, unbound(fastest(loader)))


@cache
def fastest(loader: type[Loader]) -> type[Loader]:
    """Return psycopg's C implementation of its own loader, or the same loader where it has none."""
    # The exchange is made by a map of adapters, which is public; the C classes have no public name.
    scratch = AdaptersMap()
    scratch.register_loader(_TIMESTAMPTZ, loader)
    return cast("type[Loader]", scratch.get_loader(_TIMESTAMPTZ, loader.format))


@cache
def unbound(loader: type[Loader]) -> type[Loader]:
    """Return a class that makes this loader and keeps the connection from it."""

    # A subclass would be slower by the whole of Python: psycopg's C code calls only its own classes directly.
    class Unbound:
        format = loader.format

        def __new__(cls, oid: int, context: AdaptContext | None = None) -> Loader:  # type: ignore[misc]  # another class on purpose
            # Without a connection it takes every text for ISO, and would read 01/02/0003 as a day in the year 1.
            is_readable = cls.format is Format.BINARY or _is_iso(context)
            return loader(oid, None if is_readable else context)

    return cast("type[Loader]", Unbound)


def _is_iso(context: AdaptContext | None) -> bool:
    connection = context.connection if context else None
    style = connection.pgconn.parameter_status(b"DateStyle") if connection else None
    return style is None or style.startswith(b"ISO")
