"""The kinds of field that requests are made of: each takes only what PostgreSQL can store as it was sent."""

import json
import re
import zoneinfo
from functools import cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

LARGEST_ID = 2**63 - 1  # bigint
LARGEST_PREFERENCES = 16_384  # bytes of compact JSON
DEEPEST_PREFERENCES = 32  # levels of nesting
LARGEST_NUMBER = 2**53 - 1  # beyond it JavaScript rounds (RFC 7493, section 2.2)

# PostgreSQL stores no NUL, a lone surrogate has no UTF-8 (in a field of text Pydantic refuses it), and the other
# controls have no business in a line.
_NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_JSON = re.compile(r"[\x00\ud800-\udfff]")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class RequestBody(BaseModel):
    """Base of what is sent: an unknown field, or a value of another type, is refused and not guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseBody(BaseModel):
    """Base of what is shown, read from the attributes of a row."""

    model_config = ConfigDict(from_attributes=True)


def optional() -> Any:  # noqa: ANN401 - it stands in for a field of any type
    """Make the default of a field that a change may leave out, and that cannot be null.

    Nobody reads the None, and no schema shows it: what was left out is known by `model_fields_set`.
    """
    return Field(default=None)


def _line(value: str) -> str:
    if _NOT_IN_A_LINE.search(value):
        raise PydanticCustomError("line", "Control characters are not accepted")
    return value


def _email(value: str) -> str:
    if not _EMAIL.fullmatch(value):
        raise PydanticCustomError("email", "Send an email address, such as name@example.com")
    return value


def _timezone(value: str) -> str:
    if value not in _timezones():
        raise PydanticCustomError("timezone", "Send an IANA time zone key, such as Europe/Berlin")
    return value


@cache
def _timezones() -> frozenset[str]:
    # The first call walks the files of the database. These names are of this machine, or of no place.
    return frozenset(zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"})


def _preferences(value: object) -> object:
    """Refuse what jsonb cannot keep as it is, before anything recurses into it."""
    level: list[object] = [value]
    depth = 0
    while level:
        if depth > DEEPEST_PREFERENCES:
            raise _refused(f"Nest at most {DEEPEST_PREFERENCES} levels deep")
        for item in level:
            _check_scalar(item)
        level = [part for item in level for part in _parts(item)]
        depth += 1
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    if size > LARGEST_PREFERENCES:
        raise _refused(f"Send at most {LARGEST_PREFERENCES} bytes of JSON")
    return value


def _parts(item: object) -> list[object]:
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    return item if isinstance(item, list) else []


def _check_scalar(item: object) -> None:
    if isinstance(item, str) and _NOT_IN_JSON.search(item):
        raise _refused("NUL characters and lone surrogates are not accepted")
    # NaN is at most nothing, so it is refused with the rest.
    if isinstance(item, int | float) and not abs(item) <= LARGEST_NUMBER:
        raise _refused(f"Send numbers of a magnitude of at most {LARGEST_NUMBER}, or send them as text")


def _refused(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("preferences", "{sentence}", {"sentence": sentence})


Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]

Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_line)
]
"""One line of text: trimmed, 1 to 200 characters."""

Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=3, max_length=320),
    AfterValidator(_line),
    AfterValidator(_email),
]
"""Something, an @, something, with no space: whether mail arrives there, only mail can tell."""

Timezone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_timezone)]
"""A key of the IANA time zone database, as this machine has it."""

Preferences = Annotated[dict[str, JsonValue], BeforeValidator(_preferences)]
"""A JSON object of bounded size and depth."""
