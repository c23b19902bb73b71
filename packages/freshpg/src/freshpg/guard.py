"""What the tier `session` cannot hold, recognised as it happens: by statements' text, and by other connections."""

from __future__ import annotations

import re
from contextlib import contextmanager
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from psycopg import BaseConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

ASK = 'Ask for real commits: @pytest.mark.postgres("committing").'


class TierTooWeak(Exception):  # noqa: N818 (it says what is so)
    """A test of the tier `session` did what one rolled-back transaction cannot show truly; the message says what."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} {ASK}")


class Kind(Enum):
    """What a statement means for the transaction that it runs in."""

    NOTHING = "nothing"
    READ = "read"
    WRITE = "write"
    SAVEPOINT = "savepoint"
    RELEASE = "release"


_NOISE = re.compile(r"--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'", re.DOTALL)
_ENDS = re.compile(
    r"(?:^|;)\s*(commit|rollback|abort|end|begin|start\s+transaction|prepare\s+transaction)\b(?!\s+(?:atomic|to\b"
    r"|(?:work|transaction)\s+to\b))"
)
_TELLS = re.compile(r"(?:^|;)\s*(listen|notify|unlisten)\b|\b(pg_notify)\s*\(")
_LOCKS = re.compile(r"\b(pg_(?:try_)?advisory_lock(?:_shared)?)\s*\(")
_LEVEL = re.compile(r"\bset\s[^;]*isolation\s+level\s+(serializable|repeatable\s+read)")
_WRITES = re.compile(
    r"\b(insert\s+into|update|delete\s+from|merge\s+into)\b(?<!for update)(?<!no key update)"
)
_READS = (
    "select", "values", "table", "show", "explain", "fetch", "move", "set", "reset", "declare", "close", "lock",
    "analyze", "discard", "deallocate", "rollback", "execute", "prepare", "load", "checkpoint", "unlisten",
)  # fmt: skip


@lru_cache(maxsize=4096)
def kind_of(statement: str) -> Kind:
    """Tell what a statement does, by its text; raise TierTooWeak for one that the tier `session` cannot hold."""
    text = _NOISE.sub(lambda noise: "''" if noise[0][0] in "'$" else " ", statement).strip().lower()
    if not text.strip("; \n"):
        return Kind.NOTHING
    if (found := _ENDS.search(text)) and "begin atomic" not in text:
        raise TierTooWeak(
            f"The statement {found[1].upper()} was sent as text: it would end the test's transaction."
        )
    if found := _TELLS.search(text):
        name = (found[1] or found[2]).upper()
        raise TierTooWeak(f"{name} was used, and notifications are sent when a transaction really commits.")
    if found := _LOCKS.search(text):
        raise TierTooWeak(f"{found[1]} was used, whose lock belongs to a connection, and here all share one.")
    if found := _LEVEL.search(text):
        raise TierTooWeak(
            f"The isolation level {found[1].upper()} was asked for, which a savepoint cannot change."
        )
    first = text.split(None, 1)[0].strip("(;")
    if first in ("savepoint", "release"):
        return Kind.SAVEPOINT if first == "savepoint" else Kind.RELEASE
    if first in _READS and ";" not in text.rstrip("; \n"):
        return Kind.READ
    if first == "with" or first in _READS:
        return Kind.WRITE if _WRITES.search(text) else Kind.READ
    return Kind.WRITE


@contextmanager
def connections_seen(see: Callable[[BaseConnection[Any]], None]) -> Iterator[None]:
    """Have `see` told of each connection that this process opens with psycopg; what it raises reaches who connects.

    psycopg has no hook for it, so the one function by which all its connections are made is wrapped for so long.
    """
    original = BaseConnection.__dict__["_connect_gen"]

    def connect(
        cls: type[BaseConnection[Any]], conninfo: str = ""
    ) -> Generator[Any, Any, BaseConnection[Any]]:
        connection = yield from original.__func__(cls, conninfo)
        try:
            see(connection)
        except BaseException:
            connection.pgconn.finish()
            raise
        return connection  # type: ignore[no-any-return]  # what it makes is Any

    BaseConnection._connect_gen = classmethod(connect)  # type: ignore[assignment] # noqa: SLF001  # psycopg's
    try:
        yield
    finally:
        BaseConnection._connect_gen = original  # type: ignore[method-assign] # noqa: SLF001  # psycopg's
