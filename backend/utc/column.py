"""`UtcDateTime`, the column type for timestamps."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, Dialect
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator, TypeEngine

from backend.utc.instants import ensure_utc
from backend.utc.session import is_pinned


class UtcDateTime(TypeDecorator[datetime]):
    """TIMESTAMP WITH TIME ZONE that accepts only aware datetimes and returns them in `timezone.utc`.

    Binding a naive datetime, a date or a string raises StatementError before anything is sent.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return _to_utc(value)

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], datetime | None]:  # noqa: ARG002 - SQLAlchemy's signature
        # TypeDecorator's own processor makes three calls for each value, which slows bulk writes down.
        return _to_utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return _to_utc(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        # The driver of a pinned engine already returns UTC, so the values need no further call.
        return None if is_pinned(dialect) else super().result_processor(dialect, coltype)

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> TypeEngine[Any]:  # noqa: ANN401 - SQLAlchemy's signature
        # `column - timedelta(...)` is arithmetic with an interval. Anything else is compared as a timestamp, so that
        # a date or a string is refused and not cast in the session's zone.
        if isinstance(value, timedelta):
            return self.impl_instance.coerce_compared_value(op, value)
        return self


def _to_utc(value: datetime | None) -> datetime | None:
    return None if value is None else ensure_utc(value)
