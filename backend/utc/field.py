"""`UtcField`, the Pydantic type for timestamps in requests and responses."""

from datetime import datetime
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from backend.utc.instants import ensure_utc, format_utc, parse_utc

_SCHEMA = {"type": "string", "format": "date-time", "examples": ["2024-01-31T12:00:00.000000Z"]}
_REQUEST = r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$"
_RESPONSE = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$"


def _validate(value: object) -> datetime:
    # Pydantic's own parser would also accept 1700000000 and "20240101". A datetime object comes from our own code,
    # never from JSON.
    try:
        if isinstance(value, str):
            return parse_utc(value)
        if isinstance(value, datetime):
            return ensure_utc(value)
    except ValueError as error:
        raise PydanticCustomError("utc_instant", "{reason}", {"reason": str(error)}) from error
    raise PydanticCustomError(
        "utc_instant", "send an RFC 3339 date-time as a string, such as 2024-01-31T12:00:00Z"
    )


UtcField = Annotated[
    datetime,
    PlainValidator(_validate),
    PlainSerializer(format_utc, return_type=str, when_used="json"),
    WithJsonSchema(_SCHEMA | {"pattern": _REQUEST}, mode="validation"),
    WithJsonSchema(_SCHEMA | {"pattern": _RESPONSE}, mode="serialization"),
]
"""A timestamp: RFC 3339 with an offset in requests, exactly `YYYY-MM-DDTHH:MM:SS.ffffffZ` in responses."""
