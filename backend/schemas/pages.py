"""Lists: their query parameters and their shape."""

import re
from collections.abc import Iterable
from typing import Annotated, Generic, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from backend.schemas.fields import ResponseBody

Item = TypeVar("Item", bound=ResponseBody)

CURSOR = r"^[0-7][0-9a-f]{15}$"


def encode_cursor(key: int) -> str:
    """Return the cursor for the rows after this key. Clients treat it as opaque, so its format may change."""
    return f"{key:016x}"


def _decode_cursor(value: object) -> int:
    text = str(value)
    if not re.fullmatch(CURSOR, text):
        raise ValueError("Send the next_cursor of another page, or omit it")
    return int(text, 16)


class PageQuery(BaseModel):
    """The query parameters of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=200, description="The largest number of items to return.")
    cursor: Annotated[
        int | None, BeforeValidator(_decode_cursor), WithJsonSchema({"type": "string", "pattern": CURSOR})
    ] = Field(default=None, description="The `next_cursor` of the previous page.")


class Page(ResponseBody, Generic[Item]):
    """One page of a list, ordered by id."""

    items: list[Item]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null on the last one."
    )

    @classmethod
    def of(cls, rows: Iterable[object], last_key: int | None) -> Self:
        """Make a page of rows; `last_key` is the key of the last row if more rows follow."""
        cursor = None if last_key is None else encode_cursor(last_key)
        return cls.model_validate({"items": list(rows), "next_cursor": cursor}, from_attributes=True)
