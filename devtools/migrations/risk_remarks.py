"""The risks of a migration on a live table: squawk's findings about its SQL, and drops that may be renames."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from backend.migrations.catalog import Catalog
from backend.migrations.drift import Difference
from devtools.migrations.difference_sql import names, values

SQUAWK = Path(sys.executable).parent / "squawk"
# We have our own remark about drops. Migrations set lock_timeout and run in a transaction by design. The other rules
# are matters of taste.
QUIET = (
    "ban-drop-", "require-lock-timeout", "require-statement-timeout", "prefer-", "require-timeout", "transaction",
    "syntax-error",
)  # fmt: skip


def of_sql(steps: Sequence[str]) -> list[list[str]]:
    """Return squawk's messages for the SQL of each step; squawk knows which tables the earlier steps created."""
    found: list[list[str]] = [[] for _ in steps]
    of_line = [messages for messages, sql in zip(found, steps, strict=True) for _ in sql.splitlines()]
    command = [str(SQUAWK), "--assume-in-transaction", "--reporter", "json"]
    ran = subprocess.run(command, input="".join(steps), capture_output=True, text=True, check=False)
    for each in json.loads(ran.stdout or "[]"):
        sentence = " ".join(filter(None, (each["message"], each["help"])))
        messages = of_line[each["line"]]
        if not each["rule_name"].startswith(QUIET) and sentence not in messages:
            messages.append(sentence)
    return found


def of_rows(difference: Difference, before: Catalog, wanted: Catalog) -> Iterator[str]:
    """Yield what rows lose, why rows make it fail, and what may be a rename. Lines for copying are indented."""
    thing = difference.thing
    if thing.kind == "type" and difference.what == "changed":
        yield from _of_values(difference)
    if difference.what == "extra" and thing.kind in ("table", "column"):
        yield from _of_drops(difference, before, wanted)


def _of_drops(difference: Difference, before: Catalog, wanted: Catalog) -> Iterator[str]:
    thing = difference.thing
    name = thing.name if thing.kind == "table" else f"{thing.table}.{thing.name}"
    yield (
        f"Drops `{name}` and its data. The previous release still reads it during a deployment: drop it one release "
        "after the code stops using it."
    )
    *schema, table = names(thing.table)
    option = f', schema="{schema[0]}"' if schema else ""
    columns = _columns(thing.table, before)
    for new in (each for each in wanted if each.kind == thing.kind and each not in before):
        name = names(new.name)[-1]
        if thing.kind == "table":
            is_similar = len(columns & _columns(new.table, wanted)) * 2 > len(columns)
            call = f'op.rename_table("{table}", "{name}"{option})'
        else:
            is_similar = new.table == thing.table and wanted[new]["type"] == difference.actual["type"]
            call = f'op.alter_column("{table}", "{names(thing.name)[0]}", new_column_name="{name}"{option})'
        if is_similar:
            yield (
                f"If `{thing.name}` became `{new.name}`, replace both steps with this, which keeps the data:\n"
                f"    {call}"
            )


def _of_values(difference: Difference) -> Iterator[str]:
    there, wanted = values(difference.actual), values(difference.expected)
    gone = [each for each in there if each not in wanted]
    new = [each for each in wanted if each not in there]
    if gone:
        yield f"Fails if a row has {' or '.join(gone)}, which `{difference.thing.name}` no longer has."
    if len(gone) == len(new) == 1:
        call = f'op.execute("ALTER TYPE {difference.thing.name} RENAME VALUE {gone[0]} TO {new[0]}")'
        yield f"If {gone[0]} became {new[0]}, replace the change of the type with this to keep the rows:\n    {call}"


def _columns(table: str, of: Catalog) -> set[str]:
    return {thing.name for thing in of if thing.table == table and thing.kind == "column"}
