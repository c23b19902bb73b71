r"""A `.env` file as the settings read it, and what of it Compose reads as another thing.

The grammar is python-dotenv's, which reads the settings and may not be there: a test holds the two together.
Where Compose differs was found by asking both, and another test asks them again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLANK = re.compile(r"(?:\s|(?:export[^\S\r\n]+)?#[^\r\n]*)*")
_BINDING = re.compile(
    r"""
    (?:export[^\S\r\n]+)?+
    (?P<name>'[^']+'|(?!')[^=\#\s]++)
    [^\S\r\n]*+
    (?P<equals>=[^\S\r\n]*+
        (?P<value>
            (?<=[^\S\r\n])\#[^\r\n]*              # a comment, and no value
            | '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*"
            | (?!['"])[^\r\n]*
        )
    )?
    (?:[^\S\r\n]*\#[^\r\n]*)?
    [^\S\r\n]*(?:\r\n|\n|\r|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_REST = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_NEWLINE = re.compile(r"\r\n|\n|\r")
_ESCAPES = {
    "'": re.compile(r"\\([\\'])"),
    '"': re.compile(r"\\([\\'\"abfnrtv])"),
}
# What Compose expands, in double quotes and where there are none; a `$` before anything else stays.
_EXPANDED = re.compile(r"\$[A-Za-z_{$]")
_NAMED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True)
class Line:
    """A setting in a file, or a line that cannot be read, which has no name."""

    number: int
    name: str | None
    value: str | None = None
    """What Python reads; None where there is no equals sign."""
    difference: str = ""
    """What Compose makes another value of; empty where both read the same."""


def parse(text: str) -> Iterator[Line]:
    text = text.removeprefix("\ufeff")
    at = _skip(text, 0)
    while at < len(text):
        number = len(_NEWLINE.findall(text, 0, at)) + 1
        found = _BINDING.match(text, at)
        if found is None:
            rest = _REST.match(text, at)
            at = rest.end() if rest else len(text)
            yield Line(number, None)
        else:
            at = found.end()
            yield _line(number, found)
        at = _skip(text, at)


def with_plain_newlines(text: str) -> str:
    """Return what the settings see of a file: like any text that Python opens, with every end of line as one."""
    return _NEWLINE.sub("\n", text)


def stray_returns(text: str) -> Iterator[int]:
    """Give the lines that end in a carriage return alone, which only to Python is the end of a line."""
    newlines = [found[0] for found in _NEWLINE.finditer(text)]
    yield from (number for number, newline in enumerate(newlines, 1) if newline == "\r")


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _line(number: int, found: re.Match[str]) -> Line:
    name, written = found["name"], found["value"]
    is_quoted = name.startswith("'")
    name = name.strip("'") if is_quoted else name
    if found["equals"] is None:
        return Line(number, name)
    quote = written[:1] if written[:1] in ("'", '"') else ""
    difference = "the quotes around the name" if is_quoted else _difference(found["equals"], written, quote)
    return Line(number, name, _value(found["equals"], written, quote), difference)


def _value(equals: str, written: str, quote: str) -> str:
    if quote:
        return _ESCAPES[quote].sub(lambda escape: _NAMED.get(escape[1], escape[1]), written[1:-1])
    if written.startswith("#") and equals[1:2].isspace():
        return ""
    return re.sub(r"\s+#.*", "", written).rstrip()


def _difference(equals: str, written: str, quote: str) -> str:
    """Say what in a value Compose and Python do not read alike; nothing where they do."""
    if quote == "'":
        return "two backslashes" if "\\\\" in written else ""
    if _EXPANDED.search(written):
        return "`${...}`" if "${" in written else "`$`"
    if quote and re.search(r"\\[0'$]", written):
        return "a backslash"
    if not quote and (re.search(r"[^\S ]#", written) or (written.startswith("#") and equals[1:2].isspace())):
        return "`#`"
    return ""
