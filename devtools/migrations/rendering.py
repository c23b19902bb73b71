"""The Python code of a migration's file: comments, SQL in short lines, and types that do not depend on ours."""

import re
import textwrap
from collections.abc import Iterable
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator

_PROSE_WRAPPER = textwrap.TextWrapper(90, break_long_words=False)
_SQL_WRAPPER = textwrap.TextWrapper(
    90, expand_tabs=False, replace_whitespace=False, drop_whitespace=False, break_long_words=False,
    break_on_hyphens=False,
)  # fmt: skip
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?![:\w])")


def comment(sentence: str) -> str:
    """Wrap prose, but keep indented lines, which people copy, in one line."""
    wrapped = (
        [line] if line.startswith(" ") else _PROSE_WRAPPER.wrap(line) for line in sentence.splitlines()
    )
    return "\n".join(f"# {line}" for lines in wrapped for line in lines)


def execute(statements: Iterable[str]) -> str:
    return "\n".join(f"op.execute({_literal(each)})" for each in statements)


def _literal(sql: str) -> str:
    """Write SQL in short lines, so that text() finds no parameters in it and keeps a backslash before a colon."""
    escaped = _PARAMETER.sub(r"\\:\1", re.sub(r"\\(?=:)", r"\\\\", sql))
    lines = [piece for line in escaped.splitlines(keepends=True) for piece in _SQL_WRAPPER.wrap(line)]
    return " ".join(map(repr, lines))


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:  # noqa: ANN401  Alembic's hook
    """Write PostgreSQL's type instead of ours: a migration must mean the same when our types do not exist any more."""
    if kind != "type":
        return False
    if isinstance(item, TypeDecorator) and not type(item).__module__.startswith("sqlalchemy."):
        item = item.load_dialect_impl(postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's gap
        package = "postgresql" if type(item).__module__.startswith("sqlalchemy.dialects.") else "sa"
        return render_item(kind, item, context) or f"{package}.{item!r}"
    if not isinstance(item, sa.Enum):
        return False
    if not item.native_enum:
        return f"sa.String(length={item.length})"
    schema = f", schema={item.schema!r}" if item.schema else ""
    return (
        f"postgresql.ENUM({', '.join(map(repr, item.enums))}, name={item.name!r}{schema}, create_type=False)"
    )
