"""psycopg connections and cursors that tell what they send, whether SQLAlchemy makes a cursor or the test itself does.

SQLAlchemy's own events would tell as much of what it sends, for a tenth of a millisecond a test: an engine that has any
takes the long way for every statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_ENDS = ("COMMIT", "ROLLBACK", "PREPARE TRANSACTION")
"""How a command of psycopg's own begins that ends a transaction, or goes back in it."""


class Telling:
    """A mixin for cursors that tell their connection what they are about to send."""

    _conn: Any
    _statement: Any = None

    def _start_query(self, query: Any = None) -> Generator[Any, Any, None]:  # noqa: ANN401 (psycopg's)
        statement = self._statement if query is None else query
        if statement is not None:
            self._conn.about_to_send(statement)
        yield from super()._start_query(query)  # type: ignore[misc] # the cursor's

    def _start_copy_gen(self, statement: Any, params: Any = None) -> Generator[Any, Any, None]:  # noqa: ANN401
        self._statement = statement
        yield from super()._start_copy_gen(statement, params)  # type: ignore[misc] # the cursor's


_made: dict[tuple[type[Any], type[Any]], type[Any]] = {}


def telling(cursor: type[Any], mixin: type[Any] = Telling) -> type[Any]:
    """Return this kind of cursor as one that tells."""
    if (cursor, mixin) not in _made:
        _made[cursor, mixin] = type(f"Telling{cursor.__name__}", (mixin, cursor), {})
    return _made[cursor, mixin]


def text_of(statement: Any, connection: psycopg.Connection[Any]) -> str:  # noqa: ANN401 (psycopg's Query)
    """Return a statement's text, in whichever form psycopg takes it."""
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        return statement.decode(errors="replace")
    if isinstance(statement, sql.Composable):
        return statement.as_string(connection)
    if hasattr(statement, "interpolations"):
        return "".join(_part_of(each, connection) for each in statement)
    return str(statement)


def _part_of(part: Any, connection: psycopg.Connection[Any]) -> str:  # noqa: ANN401 (of a template string, Python 3.14's)
    """Return what a template string's part is in a statement: values, which psycopg sends beside it, are not told."""
    value = getattr(part, "value", part)
    if isinstance(part, str) or isinstance(value, sql.Composable) or hasattr(value, "interpolations"):
        return text_of(value, connection)
    return sql.Identifier(value).as_string(connection) if part.format_spec == "i" else "%s"


class RecordedConnection(psycopg.Connection[Any]):
    """A connection that tells each statement, COMMIT and ROLLBACK, once it is told whom."""

    _record: Callable[[str], None] | None = None

    def record_by(self, record: Callable[[str], None]) -> None:
        """Have `record` told of all that is sent from now on, by cursors of whichever kind the connection makes."""
        self._record = record
        self.cursor_factory = telling(self.cursor_factory)
        self.server_cursor_factory = telling(self.server_cursor_factory)

    def about_to_send(self, statement: Any) -> None:  # noqa: ANN401 (psycopg's Query)
        if self._record is not None:
            self._record(text_of(statement, self))

    def _exec_command(self, command: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:  # noqa: ANN401 (psycopg's)
        # By which psycopg sends whatever no cursor does: in a pipeline, by `transaction()`, in two phases.
        if self._record is not None:
            text = text_of(command, self)
            if text.startswith(_ENDS):
                self._record(text)
        return (yield from super()._exec_command(command, *args, **kwargs))
