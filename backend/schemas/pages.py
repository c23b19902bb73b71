"""Lists: what may be asked of them, and their shape."""

import base64
from collections.abc import Iterable
from typing import Annotated, Generic, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from backend.schemas.fields import Id, ResponseBody

Item = TypeVar("Item", bound=ResponseBody)

_MARK = "after:"


def encode_cursor(key: int) -> str:
    """Make the text that asks for what comes after this key; opaque to callers, so that it may change."""
    return base64.urlsafe_b64encode(f"{_MARK}{key}".encode()).decode().rstrip("=")


def _decode_cursor(value: object) -> int:
    text = str(value)
    try:
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        key = int(decoded.removeprefix(_MARK))
    except ValueError as error:
        raise _bad_cursor() from error
    # Decoders overlook much; there is one spelling, the one that was given out.
    if encode_cursor(key) != text:
        raise _bad_cursor()
    return key


def _bad_cursor() -> PydanticCustomError:
    return PydanticCustomError("cursor", "Send a cursor as a list gave it in next_cursor, or none")


class PageQuery(BaseModel):
    """The query parameters of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=200, description="How many to return at most.")
    cursor: Annotated[Id | None, BeforeValidator(_decode_cursor), WithJsonSchema({"type": "string"})] = Field(
        default=None, description="The `next_cursor` of the page before."
    )


class Page(ResponseBody, Generic[Item]):
    """One page of a list, in the order of the items' ids."""

    items: list[Item]
    next_cursor: str | None = Field(description="What asks for the next page; null on the last one.")

    @classmethod
    def of(cls, rows: Iterable[object], last_key: int | None) -> Self:
        """Show rows, and the way to what comes after the last one's key where there is more."""
        cursor = None if last_key is None else encode_cursor(last_key)
        return cls.model_validate({"items": list(rows), "next_cursor": cursor}, from_attributes=True)
