"""The types of request fields. Each accepts only values that PostgreSQL can store unchanged, and its schema says so."""

import json
import re
import zoneinfo
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic.config import JsonDict

LARGEST_PREFERENCES = 16_384  # bytes of compact JSON
DEEPEST_PREFERENCES = 32  # levels of nesting
LARGEST_NUMBER = 2**53 - 1  # also for ids: JavaScript rounds larger numbers (RFC 7493, section 2.2)

# White space and control characters, written out because \s differs between dialects of regular expressions.
_BLANK = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028\u2029\u202f\u205f\u3000\ufeff"
LINE = rf"^[^\x00-\x1f\x7f]*[^{_BLANK}][^\x00-\x1f\x7f]*$"
EMAIL = rf"^ *[^@{_BLANK}]+@[^@{_BLANK}]+ *$"
_NOT_IN_JSON = re.compile(r"[\x00\ud800-\udfff]")


class RequestBody(BaseModel):
    """Base of request bodies: unknown fields and values of another type are refused, not converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseBody(BaseModel):
    """Base of response bodies; they are read from the attributes of a row."""

    model_config = ConfigDict(from_attributes=True)


def optional() -> Any:  # noqa: ANN401 - the default of a field of any type
    """Return the default of a field that a change may omit but that cannot be null.

    The None is never read, and no schema shows it: `model_fields_set` says which fields were sent.
    """
    return Field(default=None)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _strip(pattern: str, error: str) -> AfterValidator:
    def strip(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(error)
        return value.strip()

    return AfterValidator(strip)


def _timezone(value: str) -> str:
    if value not in _timezones():
        raise ValueError("Send an IANA time zone key, such as Europe/Berlin")
    return value


@cache
def _timezones() -> frozenset[str]:
    # The first call reads the time zone database. These three are not places; the first is the zone of this machine.
    return frozenset(zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"})


def _list_timezones(schema: JsonDict) -> None:
    zones = sorted(_timezones())
    schema["enum"] = [*zones]
    # Generated clients need these names: otherwise Etc/GMT+1 and Etc/GMT-1 would get the same one.
    schema["x-enum-varnames"] = [re.sub(r"\W", "_", zone.replace("+", "_plus_")) for zone in zones]


def _preferences(value: object) -> object:
    """Refuse values that jsonb cannot store unchanged."""
    _check(value, 0)
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    if size > LARGEST_PREFERENCES:
        raise ValueError(f"Send at most {LARGEST_PREFERENCES} bytes of JSON")
    return value


def _check(item: object, depth: int) -> None:
    if depth > DEEPEST_PREFERENCES:
        raise ValueError(f"Nest at most {DEEPEST_PREFERENCES} levels deep")
    if isinstance(item, dict | list):
        for part in (*item, *item.values()) if isinstance(item, dict) else item:
            _check(part, depth + 1)
    elif isinstance(item, str) and _NOT_IN_JSON.search(item):
        raise ValueError("NUL characters and lone surrogates are not accepted")
    # Comparisons with NaN are false, so this refuses NaN too.
    elif isinstance(item, int | float) and not abs(item) <= LARGEST_NUMBER:
        raise ValueError(f"Send numbers of a magnitude of at most {LARGEST_NUMBER}, or send them as text")


# JSON does not distinguish 7.0 from 7.
Id = Annotated[int, Field(ge=1, le=LARGEST_NUMBER), BeforeValidator(_whole)]

Line = Annotated[
    str,
    Field(min_length=1, max_length=200, json_schema_extra={"pattern": LINE}, examples=["Acme"]),
    _strip(LINE, "Send at least one visible character, and no control characters"),
]
"""One line of text of 1 to 200 characters. White space around it is removed."""

Email = Annotated[
    str,
    Field(min_length=3, max_length=320, json_schema_extra={"pattern": EMAIL}, examples=["name@example.com"]),
    _strip(EMAIL, "Send an email address, such as name@example.com"),
]
"""Text, an @ and text, without spaces; only a sent mail can show whether the address exists."""

Timezone = Annotated[
    str, Field(json_schema_extra=_list_timezones, examples=["Europe/Berlin"]), AfterValidator(_timezone)
]
"""A key of the IANA time zone database, in this machine's version."""

_TEXT = {"type": "string", "pattern": r"^[^\x00]*$"}
# The API's schema of arbitrary nested JSON: each keyword applies to values of its own type. Client generators
# understand this, but not a recursive union.
JSON_VALUE = {
    "minimum": -LARGEST_NUMBER,
    "maximum": LARGEST_NUMBER,
    "pattern": _TEXT["pattern"],
    "items": {"$ref": "#/components/schemas/JsonValue"},
    "additionalProperties": {"$ref": "#/components/schemas/JsonValue"},
    "propertyNames": _TEXT,
}

Preferences = Annotated[
    dict[str, JsonValue],
    BeforeValidator(_preferences),
    Field(
        description=f"At most {LARGEST_PREFERENCES} bytes of compact JSON, nested at most {DEEPEST_PREFERENCES} levels "
        f"deep, without NUL characters, and with numbers of a magnitude of at most {LARGEST_NUMBER}.",
        json_schema_extra={"propertyNames": _TEXT},
        examples=[{"theme": "dark"}],
    ),
]
"""A JSON object of bounded size and depth."""
