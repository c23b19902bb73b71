"""How the driver loads a timestamptz: in UTC, whatever the session's zone is at that moment."""

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

    psycopg's own loader returns values in the session's zone: `SET LOCAL` in mid-transaction would change what the
    same row looks like, two sides of a fold would load as equal, and for a zone that Python does not know it returns
    UTC. Without a connection the same loader has no zone to ask for and returns `timezone.utc`, at the speed of C.

    psycopg refuses text that is not in the ISO DateStyle, with NotImplementedError.
    """
    for loader in (TimestamptzLoader, TimestamptzBinaryLoader):
        adapters.register_loader(_TIMESTAMPTZ, unbound(fastest(loader)))


@cache
def fastest(loader: type[Loader]) -> type[Loader]:
    """Return psycopg's C implementation of its own loader, or the same loader if there is none."""
    # The C classes have no public name, but a map of adapters, which is public, replaces the class by its C twin.
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
            # Without a connection it reads every text as ISO: 01/02/0003 would be a day in the year 1.
            is_readable = cls.format is Format.BINARY or _is_iso(context)
            return loader(oid, None if is_readable else context)

    return cast("type[Loader]", Unbound)


def _is_iso(context: AdaptContext | None) -> bool:
    connection = context.connection if context else None
    style = connection.pgconn.parameter_status(b"DateStyle") if connection else None
    return style is None or style.startswith(b"ISO")
