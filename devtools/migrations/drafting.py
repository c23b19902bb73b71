"""Draft a migration from the models, and try it.

The differences come from PostgreSQL's catalog. Each step is tried in a savepoint: what is missing is created by an
Alembic operation on the models' own objects if possible, and everything else by SQL made from the catalog's
definitions. If PostgreSQL refuses a step, it is tried again after other steps, so the order of the steps is found and
not computed. The downgrade is found in the same way, and the result is run up, down and up again. Differences that no
step resolves are reported.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from alembic.autogenerate import render_op_text
from alembic.autogenerate.api import AutogenContext
from alembic.migration import MigrationContext
from alembic.operations import Operations, ops
from sqlalchemy import Connection, MetaData, Table
from sqlalchemy.dialects import postgresql

from backend.migrations import catalog, drift
from backend.migrations.catalog import Catalog, Thing
from backend.migrations.drift import Difference
from devtools.migrations import risk_remarks
from devtools.migrations.difference_sql import CONSTRAINTS, FILLS, alternatives, drop, names
from devtools.migrations.rendering import comment, execute, render_item

# Creating in this order, and dropping in its reverse, needs the fewest attempts and reads best.
ORDER = (
    "schema", "extension", "type", "domain", "sequence", "table", "column", "primary key", "unique constraint", "CHECK",
    "exclusion constraint", "index", "foreign key", "function", "procedure", "view", "materialized view", "statistics",
    "rule", "policy", "trigger", "aggregate", "foreign table",
)  # fmt: skip


@dataclass(frozen=True)
class Draft:
    """The bodies of a migration's two functions, unindented, and remarks about them."""

    upgrade: str = "pass"
    downgrade: str = "pass"
    remarks: tuple[str, ...] = ()
    """The risks on a live table; the file has them as comments."""
    missing: tuple[str, ...] = ()
    """The differences that the draft does not resolve and a person must; the file has them as comments too."""


@dataclass(frozen=True)
class Step:
    about: Difference
    code: str
    is_alembics: bool = False
    """Whether Alembic rendered it, so that the result may differ from the models."""


def draft(connection: Connection, metadata: MetaData) -> Draft | None:
    """Draft the migration from this schema to these models and back; return None if nothing differs.

    The draft is tried in a savepoint that is rolled back. Raises the errors of `catalog.expected`.
    """
    before, wanted = catalog.read(connection), catalog.expected(connection, metadata)
    if not drift.without_ignored(drift.compare(wanted, before), metadata):
        return None
    savepoint = connection.begin_nested()
    try:
        return Drafting(connection, metadata, before, wanted).draft()
    finally:
        savepoint.rollback()


class Drafting:
    """One draft, in a transaction that the caller rolls back."""

    def __init__(self, connection: Connection, metadata: MetaData, before: Catalog, wanted: Catalog) -> None:
        self.connection = connection
        self.metadata = metadata
        self.before = before
        self.wanted = wanted
        options = {
            "sqlalchemy_module_prefix": "sa.", "alembic_module_prefix": "op.", "user_module_prefix": None,
            "render_as_batch": False, "render_item": render_item,
        }  # fmt: skip
        self.context = AutogenContext(MigrationContext.configure(connection), metadata, options)
        home = (None, catalog.default_schema(connection))
        self.tables: dict[tuple[str, ...], Table] = {
            (table.name,) if table.schema in home else (table.schema, table.name): table
            for table in metadata.tables.values()
        }

    def draft(self) -> Draft:
        up, missing = self.reach(self.wanted)
        down, lacks = self.reach(self.before)
        missing += [f"on the way back, {sentence}" for sentence in lacks]
        again = [problem for step in up if (problem := self.run(step.code))]
        missing += [f"the second time up, PostgreSQL refused: {problem}" for problem in again]
        risks = risk_remarks.of_sql([_offline_sql(step.code) for step in up])
        body = [comment(f"To be completed: {sentence}.") for sentence in missing]
        remarks: list[str] = []
        for step, of_sql in zip(up, risks, strict=True):
            said = [*risk_remarks.of_rows(step.about, self.before, self.wanted), *of_sql]
            body += [*map(comment, said), step.code]
            remarks += said
        return Draft(
            "\n".join([*body, *([] if up else ["pass"])]),
            "\n".join([step.code for step in down] or ["pass"]),
            tuple(remarks),
            tuple(missing),
        )

    def reach(self, goal: Catalog) -> tuple[list[Step], list[str]]:
        """Take steps until the schema is as wanted or no step helps; return the steps and the remaining differences."""
        steps: list[Step] = []
        refused: dict[Thing, str] = {}
        now = catalog.read(self.connection)
        while True:
            found = self.differences(goal, now)
            for step in self.candidates(found, goal):
                if step in steps:
                    continue
                then, problem = self.attempt(step, found, goal)
                if then is not None:
                    now = then
                    steps.append(step)
                    break
                refused.setdefault(step.about.thing, problem)
            else:
                return steps, [_sentence(each, refused.get(each.thing)) for each in found]

    def differences(self, goal: Catalog, now: Catalog) -> list[Difference]:
        """List the remaining differences. A downgrade keeps ignored tables, and drops only what the upgrade created."""
        found = drift.compare(goal, now)
        return found if goal is self.before else drift.without_ignored(found, self.metadata)

    def attempt(self, step: Step, found: list[Difference], goal: Catalog) -> tuple[Catalog | None, str]:
        """Take a step and return the catalog after it. If it does not help, undo it and return why."""
        savepoint = self.connection.begin_nested()
        problem = self.run(step.code)
        if problem is None:
            now = catalog.read(self.connection)
            then = self.differences(goal, now)
            known = {each.thing for each in found} - {step.about.thing}
            is_other = any(
                each.what != "missing" and each.thing not in known and each.changed != ["nullability"]
                for each in then
            )
            if step.about not in then and not (step.is_alembics and is_other):
                savepoint.commit()
                return now, ""
        savepoint.rollback()
        return None, problem or "it makes something else"

    def run(self, code: str) -> str | None:
        """Run a step like the migration file; if it fails, undo it and return why."""
        savepoint = self.connection.begin_nested()
        try:
            _exec(code, MigrationContext.configure(self.connection))
            savepoint.commit()
        except Exception as error:  # noqa: BLE001  after any error, the step is not taken
            if savepoint.is_active:
                savepoint.rollback()
            return str(getattr(error, "orig", None) or error).partition("\n")[0]
        return None

    def candidates(self, found: Sequence[Difference], goal: Catalog) -> Iterator[Step]:
        """Yield steps to try: Alembic's operations first, and steps that drop dependents last."""
        ranked = sorted(
            found, key=lambda each: ORDER.index(each.thing.kind) * (-1 if each.what == "extra" else 1)
        )
        for each in ranked:
            if code := self.operation(each):
                yield Step(each, code, is_alembics=True)
        kept = self.wanted if goal is self.before else {}
        ways = [(each, alternatives(each, goal, back=_table(each.thing) in kept)) for each in ranked]
        for each, sql in ways:
            yield from (Step(each, execute(way)) for way in sql[:1])
        for each, sql in ways:
            yield from (Step(each, execute(way)) for way in sql[1:])
        for each, sql in ways:
            if sql and (clear := self.drops_of_dependents(each)):
                yield from (Step(each, execute([*clear, *way])) for way in sql)

    def drops_of_dependents(self, difference: Difference) -> list[str]:
        """Return statements that drop what CASCADE would drop, if that holds no rows; it is created again if wanted."""
        thing, outer = difference.thing, self.connection.begin_nested()
        there = catalog.read(self.connection)
        inner = self.connection.begin_nested()
        self.run(execute([f"{drop(thing)} CASCADE"]))
        gone = there.keys() - catalog.read(self.connection).keys() - {thing}
        inner.rollback()
        left = {each for each in gone if not (difference.is_whole and each.table == thing.name)}
        dropped: list[Thing] = []
        if all(
            each.kind != "table" and (each.kind != "column" or "generated" in there[each]) for each in left
        ):
            # A drop succeeds once nothing else depends on it.
            while ready := [each for each in sorted(left) if self.run(execute([drop(each)])) is None]:
                dropped += ready
                left -= set(ready)
        outer.rollback()
        return [drop(each) for each in dropped]

    def operation(self, difference: Difference) -> str:
        """Return the Alembic operation that creates what is missing; empty if Alembic cannot render it."""
        table = self.tables.get(tuple(names(difference.thing.table)))
        if difference.what != "missing" or table is None:
            return ""
        try:
            operation = self.creation(difference, table)
            # Alembic compiles for a driver that reads %% as %.
            return render_op_text(self.context, operation).replace("%%", "%") if operation else ""
        except Exception:  # noqa: BLE001  Alembic cannot render some types and options; SQL is used instead
            return ""

    def creation(self, difference: Difference, table: Table) -> ops.MigrateOperation | None:
        thing, name = difference.thing, names(difference.thing.name)[-1]
        if thing.kind == "table":
            return ops.CreateTableOp.from_table(table)
        if thing.kind == "column":
            columns = table.to_metadata(MetaData()).columns
            column = next(each for each in columns if each.name == name)
            column.nullable = column.nullable or not difference.expected.keys() & FILLS  # rows have no value
            return ops.AddColumnOp(table.name, column, schema=table.schema)
        if thing.kind == "index":
            made = ops.CreateIndexOp.from_index(next(each for each in table.indexes if each.name == name))
            made.if_not_exists = (
                _table(thing) in self.before or None
            )  # it may have been built before the release
            return made
        if thing.kind in CONSTRAINTS:
            constraint = next(each for each in table.constraints if each.name == name)
            return ops.AddConstraintOp.from_constraint(constraint)
        return None


def _exec(code: str, context: MigrationContext) -> None:
    exec(code, {"op": Operations(context), "sa": sa, "postgresql": postgresql})  # noqa: S102  our own draft


def _offline_sql(code: str) -> str:
    """Return the SQL that a step sends."""
    written = io.StringIO()
    options = {"as_sql": True, "output_buffer": written}
    _exec(code, MigrationContext.configure(dialect_name="postgresql", opts=options))
    return written.getvalue()


def _table(thing: Thing) -> Thing:
    return Thing(thing.table, "table", thing.table)


def _sentence(difference: Difference, refused: str | None) -> str:
    thing = difference.thing
    if thing.kind == "column" and difference.changed == ["nullability"]:
        return (
            f"`{thing.table}.{thing.name}` must not be null and has no default: fill the existing rows, then add "
            f"`op.execute('ALTER TABLE {thing.table} ALTER COLUMN {thing.name} SET NOT NULL')`"
        )
    place = "" if difference.is_whole else f"{thing.table}, "
    why = f" (PostgreSQL: {refused})" if refused else ""
    return f"{place}{difference.describe('the draft')}{why}"
