"""Draw the tables in the README, from the models: `nox -s diagram`.

What is drawn is Mermaid's erDiagram, which GitHub and editors show as a picture. Each table stands with its keys, its
columns and their types; a null is allowed where a column says so; each relation says what becomes of the rows when what
they refer to is deleted.
"""

import argparse
from collections.abc import Iterator, Sequence

from sqlalchemy import Column, ForeignKeyConstraint, Index, MetaData, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import ColumnCollectionConstraint

from backend.config import ROOT
from backend.errors import UserError
from backend.models.models import Base
from devtools.terminal import enter

README = ROOT / "README.md"
BEGIN, END = "<!-- diagram: made by `nox -s diagram` -->", "<!-- end of the diagram -->"

_SHORT = {"TIMESTAMP WITH TIME ZONE": "timestamptz"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="diagram", description="Draw the tables in the README anew, from the models."
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing, and exit with 1 where the drawing is stale"
    )
    options = parser.parse_args(arguments)
    before = README.read_text(encoding="utf-8")
    after = replaced(before, block(Base.metadata))
    if before == after:
        print("The README shows the tables as the models have them.")
    elif options.check:
        raise UserError("The README's diagram is stale: `nox -s diagram` draws it anew.")
    else:
        README.write_text(after, encoding="utf-8")
        print("Drew the tables in README.md anew.")


def replaced(text: str, drawing: str) -> str:
    """Put the drawing between its two lines. Raises UserError where they are not there, once each and in order."""
    head, begin, rest = text.partition(f"{BEGIN}\n")
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in tail or END in tail:
        raise UserError(f"README.md needs the lines {BEGIN} and {END}, once each: nothing was drawn.")
    return f"{head}{begin}{drawing}{end}{tail}"


def block(metadata: MetaData) -> str:
    """Return the drawing as a block of Markdown."""
    return "\n".join(["```mermaid", *mermaid(metadata), "```", ""])


def mermaid(metadata: MetaData) -> Iterator[str]:
    """Draw the relations, by which the picture is laid out, and the tables, each after those that it refers to."""
    yield "erDiagram"
    for table in metadata.sorted_tables:
        yield from (f"    {line}" for line in relations(table))
    for table in metadata.sorted_tables:
        yield ""
        yield f"    {table.name} {{"
        yield from (f"        {line}" for line in columns(table))
        yield "    }"


def relations(table: Table) -> Iterator[str]:
    for key in sorted(table.foreign_key_constraints, key=lambda key: (len(key.column_keys), str(key.name))):
        # Of a composite key the first column only says whose the rest is: it is a relation of its own elsewhere.
        own = list(key.columns)[-1]
        parent = "|o" if own.nullable else "||"
        child = "o|" if is_unique(table, own) else "o{"
        yield f'{key.referred_table.name} {parent}--{child} {table.name} : "{label(key, own)}"'


def label(key: ForeignKeyConstraint, column: Column[object]) -> str:
    # What follows SET NULL is which columns, and that is the relation's own.
    action = (key.ondelete or "no action").partition("(")[0].strip().lower()
    return f"{column.name}: {action}"


def is_unique(table: Table, column: Column[object]) -> bool:
    """Whether no two rows have the same in this column, or the same of it, as an index on lower(email) says."""
    keys: list[ColumnCollectionConstraint | Index] = [
        *(each for each in table.constraints if isinstance(each, UniqueConstraint)),
        *(
            each
            for each in table.indexes
            if each.unique and each.dialect_options["postgresql"]["where"] is None
        ),
    ]
    alone = [list(key.columns) == [column] for key in keys]
    return list(table.primary_key.columns) == [column] or any(alone)


def columns(table: Table) -> Iterator[str]:
    for column in table.columns:
        marks = {
            "PK": column.primary_key,
            "FK": bool(column.foreign_keys),
            "UK": not column.primary_key and is_unique(table, column),
        }
        keys = ", ".join(mark for mark, holds in marks.items() if holds)
        null = '"or null"' if column.nullable else ""
        yield " ".join(filter(None, (type_of(column), column.name, keys, null)))


def type_of(column: Column[object]) -> str:
    written = column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's gap
    # Mermaid's types are one word.
    return _SHORT.get(written, written.lower().replace(" ", "_"))


if __name__ == "__main__":
    enter(main)
