"""The risks of a migration on a live table: squawk's findings about its SQL, and drops that may be renames."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from backend.migrations.catalog import Catalog, Thing
from backend.migrations.drift import Difference
from devtools.migrations.difference_sql import names

SQUAWK = Path(sys.executable).parent / "squawk"
# We have our own remark about drops. Migrations set lock_timeout and run in a transaction by design. The other rules
# are matters of taste.
QUIET = (
    "ban-drop-",
    "require-lock-timeout",
    "require-statement-timeout",
    "prefer-",
    "require-timeout",
    "transaction",
)


def of_sql(steps: Iterable[Iterable[str]]) -> list[list[str]]:
    """Return squawk's messages for each step's statements; squawk knows which tables were created before."""
    lines: list[int] = []
    written: list[str] = []
    found: list[list[str]] = []
    for number, statements in enumerate(steps):
        found.append([])
        for statement in statements:
            text = statement.strip().rstrip(";") + ";"
            written.append(text)
            lines += [number] * len(text.split("\n"))
    command = [str(SQUAWK), "--assume-in-transaction", "--reporter", "json"]
    ran = subprocess.run(command, input="\n".join(written), capture_output=True, text=True, check=False)
    for each in json.loads(ran.stdout or "[]"):
        if not each["rule_name"].startswith(QUIET) and each["rule_name"] != "syntax-error":
            sentence = " ".join(filter(None, (each["message"], each["help"])))
            if sentence not in found[lines[each["line"]]]:
                found[lines[each["line"]]].append(sentence)
    return found


def of_rows(difference: Difference, before: Catalog, wanted: Catalog) -> Iterator[str]:
    """Yield what rows lose, why rows make it fail, and what may be a rename. Lines for copying are indented."""
    thing = difference.thing
    if thing.kind == "type" and difference.what == "changed":
        yield from _of_values(difference)
    if thing.kind == "foreign key" and difference.what == "missing" and _table(thing.table) in before:
        referred = difference.expected["definition"].partition(" REFERENCES ")[2].partition("(")[0]
        if _table(referred) not in before:
            yield (
                f"Fails if rows of `{thing.table}` have a value here: `{referred}` is new, so insert the referenced "
                "rows first."
            )
    if difference.what != "extra" or thing.kind not in ("table", "column"):
        return
    name = thing.name if thing.kind == "table" else f"{thing.table}.{thing.name}"
    yield (
        f"Drops `{name}` and its data. The previous release still reads it during a deployment: drop it one release "
        "after the code stops using it."
    )
    new = [each for each in wanted if each.kind == thing.kind and each not in before]
    if thing.kind == "table":
        columns = _columns(thing.table, before)
        similar = [each for each in new if len(columns & _columns(each.table, wanted)) * 2 > len(columns)]
        call = 'op.rename_table("{0}", "{1}"{2})'
    else:
        similar = [
            each
            for each in new
            if each.table == thing.table and wanted[each]["type"] == difference.actual["type"]
        ]
        call = 'op.alter_column("{3}", "{0}", new_column_name="{1}"{2})'
    *schema, table = names(thing.table)
    for each in similar:
        option = f', schema="{schema[0]}"' if schema else ""
        line = call.format(names(thing.name)[-1], names(each.name)[-1], option, table)
        yield f"If `{thing.name}` became `{each.name}`, replace both steps with this, which keeps the data:\n    {line}"


def _of_values(difference: Difference) -> Iterator[str]:
    there, wanted = (of.get("values", "").split(", ") for of in (difference.actual, difference.expected))
    gone, new = (
        [each for each in one if each not in other] for one, other in ((there, wanted), (wanted, there))
    )
    if gone:
        yield f"Fails if a row has {' or '.join(gone)}, which `{difference.thing.name}` no longer has."
    if len(gone) == len(new) == 1:
        call = f'op.execute("ALTER TYPE {difference.thing.name} RENAME VALUE {gone[0]} TO {new[0]}")'
        yield f"If {gone[0]} became {new[0]}, replace the change of the type with this to keep the rows:\n    {call}"


def _table(name: str) -> Thing:
    return Thing(name, "table", name)


def _columns(table: str, of: Catalog) -> set[Thing]:
    return {thing._replace(table="") for thing in of if thing.table == table and thing.kind == "column"}
