"""Pages of lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """The rows of a page, ordered by key, and the last one's key if more rows follow."""

    items: Sequence[Row]
    last_key: int | None


def read_page(
    session: Session,
    statement: Select[Row],
    key: InstrumentedAttribute[int],
    *,
    limit: int,
    after: int | None,
) -> Page[Row]:
    """Read the rows with a key greater than `after`: with an index, the last page is as fast as the first."""
    if after is not None:
        statement = statement.where(key > after)
    rows = session.scalars(statement.order_by(key).limit(limit + 1)).all()
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], getattr(rows[limit - 1], key.key))
