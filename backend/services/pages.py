"""Pages of lists."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")


PageRows = tuple[Sequence[Row], int | None]
"""The rows of a page, ordered by key, and the key of the last row if more rows follow."""


def read_page(
    session: Session, rows: Select[Row], key: InstrumentedAttribute[int], *, limit: int, after: int | None
) -> PageRows[Row]:
    """Read the rows whose key is greater than `after`: with an index, the last page is as fast as the first."""
    if after is not None:
        rows = rows.where(key > after)
    found = session.scalars(rows.order_by(key).limit(limit + 1)).all()
    return found[:limit], getattr(found[limit - 1], key.key) if len(found) > limit else None
