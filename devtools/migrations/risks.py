"""What a step of a migration risks on a live table, and the safe way.

Every lock that a migration takes is held until the last one of that start has run, for all of them are one transaction:
so what reads or writes a whole table belongs before the release, by hand, where the migration then finds it.
"""

import re
from collections.abc import Iterator

from alembic.operations import ops
from sqlalchemy import Computed, Connection, Identity, text

from backend.migrations.catalog import Catalog, Facts, Thing
from devtools.migrations.statements import quoted

_TEXT = re.compile(r"text|character varying(?:\((\d+)\))?")


def of(step: ops.MigrateOperation, before: Catalog, wanted: Catalog, connection: Connection) -> Iterator[str]:
    """Say what the step risks where its table has rows: sentences, each with the safe way."""
    if isinstance(step, ops.DropTableOp):
        yield from _dropped_table(step.table_name, before, wanted)
    elif not is_there(getattr(step, "table_name", getattr(step, "source_table", "")), before):
        return
    elif isinstance(step, ops.DropColumnOp):
        yield from _dropped_column(step, before, wanted)
    elif isinstance(step, ops.AddColumnOp):
        yield from _added_column(step, connection)
    elif isinstance(step, ops.AlterColumnOp):
        yield from _altered_column(step, before, wanted)
    elif isinstance(step, ops.CreateIndexOp):
        yield _index(step, before, wanted)
    elif isinstance(step, ops.CreateUniqueConstraintOp):
        yield _unique(step, before, wanted)
    elif isinstance(step, ops.CreateForeignKeyOp):
        yield _checked(step.source_table, str(step.constraint_name), "foreign key", before, wanted)
    elif isinstance(step, ops.CreateCheckConstraintOp):
        yield _checked(step.table_name, str(step.constraint_name), "CHECK", before, wanted)


def is_there(table: str, before: Catalog) -> bool:
    """Whether the table was there before, and so may have rows."""
    return Thing(table, "table", table) in before


def _dropped_table(table: str, before: Catalog, wanted: Catalog) -> Iterator[str]:
    yield (
        f"Drops `{table}` and every row of it, and the code of the release before still reads it: do this in the "
        "release after the one that no longer does."
    )
    columns = _columns(table, before).keys()
    for thing in wanted:
        if thing.kind == "table" and thing not in before:
            other = _columns(thing.table, wanted).keys()
            if len(columns & other) * 2 > len(columns | other):
                yield (
                    f"If `{table}` became `{thing.table}`, keep its rows, in the place of both steps:\n"
                    f'    `op.rename_table("{table}", "{thing.table}")`'
                )


def _dropped_column(step: ops.DropColumnOp, before: Catalog, wanted: Catalog) -> Iterator[str]:
    table, column = step.table_name, step.column_name
    yield (
        f"Drops `{table}.{column}` and what is in it, and the code of the release before still reads it: do this in "
        "the release after the one that no longer does."
    )
    there, then = _columns(table, before), _columns(table, wanted)
    for name, facts in then.items():
        if name not in there and facts["type"] == there[column]["type"]:
            yield (
                f"If `{column}` became `{name}`, keep what is in it, in the place of both steps (on a live table, "
                "by the three releases of CONTRIBUTING.md):\n"
                f'    `op.alter_column("{table}", "{column}", new_column_name="{name}")`'
            )


def _added_column(step: ops.AddColumnOp, connection: Connection) -> Iterator[str]:
    column = step.column
    default = column.server_default
    name = f"{step.table_name}.{column.name}"
    if isinstance(default, Identity | Computed) or _is_volatile(getattr(default, "arg", None), connection):
        yield (
            f"`{name}` is computed for every row: the table is written anew, and locked against all use meanwhile. On "
            "a big table add the column without that, set its default in a second step, and fill the old rows in "
            "batches."
        )
    elif not column.nullable and default is None:
        yield (
            f"`{name}` is NOT NULL and has no default, so this fails where the table has rows: give it a "
            "server_default, or add it with nullable=True, fill it, and make it NOT NULL in the next release."
        )


def _is_volatile(default: object, connection: Connection) -> bool:
    names = re.findall(r"(\w+)\s*\(", str(default))
    query = "SELECT EXISTS (SELECT FROM pg_proc WHERE proname = ANY (:names) AND provolatile = 'v')"
    return connection.scalar(text(query), {"names": [name.lower() for name in names]}) is True


def _altered_column(step: ops.AlterColumnOp, before: Catalog, wanted: Catalog) -> Iterator[str]:
    table, column = step.table_name, step.column_name
    if step.modify_type is not None:
        there, then = _columns(table, before)[column]["type"], _columns(table, wanted)[column]["type"]
        if not _is_kept_as_stored(there, then):
            yield (
                f"From {there} to {then}, `{table}` and its indexes are written anew, and locked against all use "
                "meanwhile. On a big table add a column of the new type instead, write both, fill the old rows in "
                "batches and change over: the three releases of CONTRIBUTING.md. Where PostgreSQL cannot cast by "
                "itself, say how with postgresql_using."
            )
    if step.modify_nullable is False:
        alter, check = f"ALTER TABLE {quoted(table)}", quoted(f"{table}_{column}_filled")
        yield (
            f"Fails where `{table}.{column}` is null in a row, and reads every row under a lock against all use: fill "
            "the nulls first. On a big table, by hand before the release, so that no row is read here; drop it after:\n"
            f"    {alter} ADD CONSTRAINT {check} CHECK ({quoted(column)} IS NOT NULL) NOT VALID;\n"
            f"    {alter} VALIDATE CONSTRAINT {check};"
        )


def _is_kept_as_stored(there: str, then: str) -> bool:
    old, new = _TEXT.fullmatch(there), _TEXT.fullmatch(then)
    if not old or not new:
        return False
    return new[1] is None or (old[1] is not None and int(old[1]) <= int(new[1]))


def _index(step: ops.CreateIndexOp, before: Catalog, wanted: Catalog) -> str:
    definition = wanted.get(Thing(step.table_name, "index", str(step.index_name)), {}).get("definition", "")
    return f"Keeps writers out of `{step.table_name}` until it is built. " + _before_the_release(
        _new_columns(step.table_name, definition, before, wanted),
        f"build it by hand before the release, and this finds it there:\n"
        f"    {definition.replace(' INDEX ', ' INDEX CONCURRENTLY ', 1)};",
    )


def _unique(step: ops.CreateUniqueConstraintOp, before: Catalog, wanted: Catalog) -> str:
    name, table = quoted(str(step.constraint_name)), quoted(step.table_name)
    columns = ", ".join(quoted(str(getattr(column, "name", column))) for column in step.columns)
    return f"Keeps everybody out of `{step.table_name}` while its index is built. " + _before_the_release(
        _new_columns(step.table_name, columns, before, wanted),
        f"by hand before the release:\n    CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} ({columns});\n"
        "and in the place of this step, each in an op.execute:\n"
        f"    CREATE UNIQUE INDEX IF NOT EXISTS {name} ON {table} ({columns})\n"
        f"    ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}",
    )


def _checked(table: str, name: str, kind: str, before: Catalog, wanted: Catalog) -> str:
    definition = wanted.get(Thing(table, kind, name), {}).get("definition", "")
    alter, constraint = f"ALTER TABLE {quoted(table)}", quoted(name)
    if Thing(table, kind, name) in before:
        first, then = f"DROP CONSTRAINT {constraint}, ", "and leave both steps out."
    else:
        # A sentence for a person, and no query.
        is_there = f"SELECT 1 FROM pg_constraint WHERE conname = '{name}'"  # noqa: S608  see above
        first, then = "", f'and this step under:\n    `if not op.get_bind().scalar(sa.text("{is_there}")):`'
    return f"Reads every row of `{table}`, with writers kept out, and fails where one breaks it. " + (
        _before_the_release(
            _new_columns(table, definition, before, wanted),
            f"by hand before the release:\n    {alter} {first}ADD CONSTRAINT {constraint} {definition} NOT VALID;\n"
            f"    {alter} VALIDATE CONSTRAINT {constraint};\n{then}",
        )
    )


def _before_the_release(new_columns: list[str], by_hand: str) -> str:
    if new_columns:
        # By hand, there would be no such column yet.
        return f"On a big table leave it to the release after the one that adds {' and '.join(new_columns)}."
    return f"On a big table {by_hand}"


def _new_columns(table: str, definition: str, before: Catalog, wanted: Catalog) -> list[str]:
    new = _columns(table, wanted).keys() - _columns(table, before).keys()
    return sorted(f"`{column}`" for column in new if re.search(rf"\b{re.escape(column)}\b", definition))


def _columns(table: str, schema: Catalog) -> dict[str, Facts]:
    return {thing.name: facts for thing, facts in schema.items() if thing[:2] == (table, "column")}
