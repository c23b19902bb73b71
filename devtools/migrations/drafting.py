"""Draft a migration from the models, and try it.

The differences come from PostgreSQL's catalog. Each step is tried in a savepoint: first as an Alembic operation on the
models' own objects, then as SQL made from the catalog's definitions. If PostgreSQL refuses a step, it is tried again
after other steps, so the order of the steps is found and not computed. The downgrade is found in the same way, and the
result is run up, down and up again. Differences that no step resolves are reported.
"""

import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate import render_op_text
from alembic.autogenerate.api import AutogenContext
from alembic.migration import MigrationContext
from alembic.operations import Operations, ops
from sqlalchemy import Connection, ForeignKeyConstraint, MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import conv
from sqlalchemy.types import TypeDecorator

from backend.migrations import catalog, drift
from backend.migrations.catalog import Catalog, Thing
from backend.migrations.drift import Difference
from devtools.migrations import risk_remarks
from devtools.migrations.difference_sql import CONSTRAINTS, added_values, alternatives, drop, names

WIDTH = 90  # the width of a piece of SQL, without its indentation
MADE = (
    "schema", "extension", "type", "domain", "sequence", "table", "column", "primary key", "unique constraint", "CHECK",
    "exclusion constraint", "index", "foreign key", "function", "procedure", "view", "materialized view", "trigger",
)  # fmt: skip
DEPENDENTS = ("trigger", "policy", "rule", "view", "materialized view", "foreign key")
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?![:\w])")


@dataclass(frozen=True)
class Draft:
    """The bodies of a migration's two functions, unindented, and remarks about them."""

    upgrade: str
    downgrade: str
    imports: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """The risks on a live table; the file has them as comments."""
    missing: tuple[str, ...] = ()
    """The differences that the draft does not resolve and a person must; the file has them as comments too."""


@dataclass(frozen=True)
class Step:
    code: str
    about: Difference
    is_alembics: bool = False
    """Whether Alembic rendered it, so that the result may differ from the models."""
    undone_by: tuple[str, ...] = ()
    sql: tuple[str, ...] = ()
    """The statements that were sent to PostgreSQL."""


def draft(connection: Connection, metadata: MetaData) -> Draft | None:
    """Draft the migration from this schema to these models and back; return None if nothing differs.

    The draft is tried in a savepoint that is rolled back. Raises the errors of `catalog.expected`.
    """
    before, wanted = catalog.read(connection), catalog.expected(connection, metadata)
    found = drift.without_ignored(drift.compare(wanted, before), metadata)
    if not found:
        return None
    best: Draft | None = None
    # A value that is added to an enumeration cannot be used in the same transaction, for example as a default. If the
    # models do that, the second attempt replaces the type.
    for adds_values in (True, False) if any(map(added_values, found)) else (False,):
        savepoint = connection.begin_nested()
        drafted = Drafting(connection, metadata, adds_values=adds_values).draft(before, wanted)
        savepoint.rollback()
        best = drafted if best is None or len(drafted.missing) < len(best.missing) else best
        if not best.missing:
            break
    return best


class Drafting:
    """One attempt, in a transaction that the caller rolls back."""

    def __init__(self, connection: Connection, metadata: MetaData, *, adds_values: bool) -> None:
        self.connection = connection
        self.metadata = metadata
        self.adds_values = adds_values
        self.context = AutogenContext(MigrationContext.configure(connection), metadata, _OPTIONS)
        home = catalog.default_schema(connection)
        self.tables = {
            (table.schema if table.schema != home else None, table.name): table
            for table in metadata.tables.values()
        }
        self.sent: list[str] = []
        self.before: Catalog = {}

    def draft(self, before: Catalog, wanted: Catalog) -> Draft:
        sa.event.listen(self.connection, "before_cursor_execute", self._note)
        self.before = before
        try:
            up, lacks = self.reach(wanted)
            first = [code for step in reversed(up) for code in step.undone_by]
            down, lacks_down = self.reach(before, first=first)
            problems = [problem for step in up if (problem := self.run(step.code))]
        finally:
            sa.event.remove(self.connection, "before_cursor_execute", self._note)
        missing = [*lacks, *(f"on the way back, {sentence}" for sentence in lacks_down)]
        missing += [f"the second time up, PostgreSQL refused: {problem}" for problem in problems]
        said = [
            [*risk_remarks.of_rows(step.about, before, wanted), *of_sql]
            for step, of_sql in zip(up, risk_remarks.of_sql(step.sql for step in up), strict=True)
        ]
        body = [
            part for step, each in zip(up, said, strict=True) for part in (*map(_comment, each), step.code)
        ]
        todo = [_comment(f"To be completed: {sentence}.") for sentence in missing]
        return Draft(
            "\n".join([*todo, *body, *([] if up else ["pass"])]),
            "\n".join([part for step in down for part in (*_lost(step), step.code)] or ["pass"]),
            tuple(sorted(self.context.imports)),
            tuple(sentence for each in said for sentence in each),
            tuple(missing),
        )

    def reach(self, wanted: Catalog, first: Sequence[str] | None = None) -> tuple[list[Step], list[str]]:
        """Take steps until the schema is as wanted or no step helps; return the steps and the remaining differences."""
        steps, refused, tried = list[Step](), dict[Thing, str](), set[tuple[Thing, str]]()
        nothing = Difference(Thing("", "", ""), "changed", {}, {})
        steps += [Step(code, nothing) for code in first or () if self.run(code) is None]
        now = catalog.read(self.connection)
        above = {} if first is None else now
        while True:
            found = self.differences(wanted, now)
            for step in self.candidates(found, now, wanted, above):
                if (step.about.thing, step.code) in tried:
                    continue
                sent, then, problem = self.attempt(step, found, wanted)
                if then is not None:
                    now = then
                    tried.add((step.about.thing, step.code))
                    steps.append(replace(step, sql=tuple(sent)))
                    break
                refused.setdefault(step.about.thing, problem or "it makes something else")
            else:
                return steps, [_sentence(each, refused.get(each.thing)) for each in found]

    def differences(self, wanted: Catalog, now: Catalog) -> list[Difference]:
        """List the remaining differences. A downgrade keeps ignored tables, and drops only what the upgrade created."""
        found = drift.compare(wanted, now)
        return found if wanted is self.before else drift.without_ignored(found, self.metadata)

    def attempt(
        self, step: Step, found: list[Difference], wanted: Catalog
    ) -> tuple[list[str], Catalog | None, str | None]:
        """Take a step; return its statements and the catalog after it. If it does not help, undo it and return why."""
        self.sent.clear()
        savepoint = self.connection.begin_nested()
        problem = self.run(step.code)
        sent = list(self.sent)
        if problem is None:
            now = catalog.read(self.connection)
            then = self.differences(wanted, now)
            known = {each.thing for each in found} - {step.about.thing}
            is_other = any(
                each.what != "missing" and each.thing not in known and each.changed != ["nullability"]
                for each in then
            )
            if step.about not in then and not (step.is_alembics and is_other):
                savepoint.commit()
                return sent, now, None
        savepoint.rollback()
        return sent, None, problem

    def run(self, code: str) -> str | None:
        """Run a step like the migration file; if it fails, undo it and return why."""
        names_in_file = {"op": Operations(MigrationContext.configure(self.connection)), "sa": sa}
        savepoint = self.connection.begin_nested()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(code, names_in_file | {"postgresql": postgresql})  # noqa: S102  our own draft
            savepoint.commit()
        except Exception as error:  # noqa: BLE001  after any error, the step is not taken
            if savepoint.is_active:
                savepoint.rollback()
            return str(getattr(error, "orig", None) or error).partition("\n")[0]
        return None

    def candidates(
        self, found: Sequence[Difference], now: Catalog, wanted: Catalog, above: Catalog
    ) -> Iterator[Step]:
        """Yield steps to try: the best step of each difference first, and steps that drop dependents last."""
        ranked = sorted(found, key=_rank)
        ways = {
            id(each): alternatives(
                each, wanted, back=Thing(each.thing.table, "table", each.thing.table) in above
            )
            for each in ranked
        }
        for each in ranked:
            if code := self.operations(each, now):
                yield Step("\n".join(code[0]), each, is_alembics=True, undone_by=tuple(code[1]))
            if self.adds_values and (statements := added_values(each)):
                yield Step(_execute(statements), each)
            elif ways[id(each)]:
                yield Step(_execute(ways[id(each)][0]), each)
        for each in ranked:
            yield from (Step(_execute(way), each) for way in ways[id(each)][1:])
        for each in ranked:
            for way in ways[id(each)]:
                yield Step(_execute([*_clear(each.thing, now), *way]), each)

    def operations(self, difference: Difference, now: Catalog) -> tuple[list[str], list[str]] | None:
        """Return the Alembic operations for a difference, and those that undo it, if the models' objects allow that."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = list(self._operations(difference, now))
                back = [each.reverse() for each in made] if difference.what == "missing" else []
                # Alembic compiles for a driver that reads %% as %.
                rendered = [
                    [render_op_text(self.context, each).replace("%%", "%") for each in way]
                    for way in (made, back)
                ]
        except Exception:  # noqa: BLE001  Alembic cannot render some types and options; SQL is used instead
            return None
        return (rendered[0], rendered[1]) if made else None

    def _operations(self, difference: Difference, now: Catalog) -> Iterator[ops.MigrateOperation]:
        thing, kind = difference.thing, difference.thing.kind
        *schemas, name = names(thing.table) or [""]
        schema = schemas[0] if schemas else None
        own = names(thing.name)[-1] if thing.table else ""
        table = self.tables.get((schema, name))
        if difference.what == "extra" or (kind in CONSTRAINTS and difference.what == "changed"):
            yield from _drops(kind, own, name, schema)
        if table is None or difference.what == "extra":
            return
        if kind == "table" and difference.what == "missing":
            made = ops.CreateTableOp.from_table(table)
            made.columns = [
                part for part in made.columns if not _refers_elsewhere(part, table, now, self.tables)
            ]
            yield made
        elif kind == "column" and difference.what == "missing":
            column = table.to_metadata(MetaData()).c[_key(table, own)]
            if not any(fact in difference.expected for fact in ("default", "generated", "identity")):
                column.nullable = True  # existing rows have no value
            yield ops.AddColumnOp(name, column, schema=schema)
        elif kind == "index" and difference.what == "missing":
            [index] = [each for each in table.indexes if each.name == own]
            made_index = ops.CreateIndexOp.from_index(index)
            if Thing(thing.table, "table", thing.table) in self.before:
                made_index.if_not_exists = True  # it may have been built by hand before the release
            yield made_index
        elif kind in CONSTRAINTS:
            [constraint] = [each for each in table.constraints if each.name == own]
            yield ops.AddConstraintOp.from_constraint(constraint)

    def _note(self, _connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        self.sent.append(statement.replace("%%", "%"))


def _key(table: Table, name: str) -> str:
    return next(column.key for column in table.columns if column.name == name)


def _refers_elsewhere(
    part: object, table: Table, now: Catalog, tables: dict[tuple[str | None, str], Table]
) -> bool:
    """Whether it is a foreign key to a table that does not exist yet."""
    if not isinstance(part, ForeignKeyConstraint) or part.referred_table is table:
        return False
    there = {tuple(names(thing.name)) for thing in now if thing.kind == "table"}
    referred = next((key for key, each in tables.items() if each is part.referred_table), (None, ""))
    return tuple(filter(None, referred)) not in there


def _drops(kind: str, name: str, table: str, schema: str | None) -> Iterator[ops.MigrateOperation]:
    if kind == "table":
        yield ops.DropTableOp(table, schema=schema)
    elif kind == "column":
        yield ops.DropColumnOp(table, name, schema=schema)
    elif kind == "index":
        yield ops.DropIndexOp(name, table, schema=schema)
    elif kind in CONSTRAINTS:
        types = {
            "primary key": "primary",
            "unique constraint": "unique",
            "CHECK": "check",
            "foreign key": "foreignkey",
        }
        is_key = kind == "primary key" or None  # it may not have returned on a way back
        yield ops.DropConstraintOp(conv(name), table, type_=types.get(kind), schema=schema, if_exists=is_key)


def _rank(difference: Difference) -> int:
    """Rank a difference: dependents are dropped first, objects are created before those that need them."""
    kind = difference.thing.kind
    if difference.what == "extra":
        return (
            DEPENDENTS.index(kind) if kind in DEPENDENTS else 100 - MADE.index(kind) if kind in MADE else 50
        )
    return 10 + MADE.index(kind) if kind in MADE else 40


def _clear(thing: Thing, now: Catalog) -> list[str]:
    """Return statements that drop the objects that may depend on this one; wanted ones are created again later."""
    kinds: tuple[str, ...] = (*DEPENDENTS, *CONSTRAINTS[:-1], "index", "column")
    if thing.kind in CONSTRAINTS:  # a foreign key references a table, not a constraint
        thing, kinds = Thing("", "table", thing.table), ("foreign key",)
    candidates = [each for each in now if each.kind in kinds and each != thing]
    related, new = set[Thing](), {thing}
    while new:
        new = {each for each in candidates if each not in related and _mentions(each, now, new)}
        related |= new
    ordered: list[Thing] = []
    while related:
        free = {each for each in related if not any(_mentions(it, now, {each}) for it in related - {each})}
        ordered += sorted(free or related, key=lambda each: (each.kind != "foreign key", each))
        related -= free or related
    return [drop(each) for each in ordered]


def _mentions(thing: Thing, now: Catalog, others: set[Thing]) -> bool:
    """Whether its definition names one of the others; a column counts in its own table, or with its table's name."""
    definition = now[thing].get("generated", now[thing].get("definition", ""))

    def has(name: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", definition) is not None

    return any(
        has(names(each.name.partition("(")[0])[-1])
        and (each.kind != "column" or thing.table == each.table or has(names(each.table)[-1]))
        for each in others
    )


def _sentence(difference: Difference, refused: str | None) -> str:
    thing, table = difference.thing, names(difference.thing.table)[-1:]
    if thing.kind == "column" and difference.changed == ["nullability"]:
        where = ", schema=..." if len(names(thing.table)) > 1 else ""
        call = f'op.alter_column("{table[0]}", "{names(thing.name)[0]}", nullable=False{where})'
        return (
            f"`{thing.table}.{thing.name}` must not be null and has no default: fill the existing rows, then add "
            f"`{call}`"
        )
    place = f"{thing.table}, " if thing.table not in ("", thing.name) else ""
    why = f" (PostgreSQL: {refused})" if refused else ""
    return f"{place}{difference.tell('the draft', 'the models')}{why}"


def _lost(step: Step) -> Iterator[str]:
    """Yield comments on what a downgrade may lose, or why it may fail, if there are rows."""
    if "unique_violation" in step.code:
        yield "# If rows lack a value for it, the primary key is not restored."
    elif "foreign_key_violation" in step.code:
        yield "# If rows reference rows that do not exist any more, it stays NOT VALID."
    elif "not_null_violation" in step.code:
        yield _comment(
            f"The values of `{step.about.thing.name}` are lost: if there are rows, it stays nullable."
        )
    elif step.about.what == "changed" and "type" in step.about.changed:
        yield "# This fails if a row has a value that the old type does not have."


def _comment(sentence: str) -> str:
    """Wrap prose, but keep indented lines, which people copy, in one line."""
    lines: list[str] = []
    for line in sentence.splitlines():
        lines += [line] if line.startswith(" ") else textwrap.wrap(line, WIDTH, break_long_words=False)
    return "\n".join(f"# {line}" for line in lines)


def _execute(statements: Iterable[str]) -> str:
    """Write SQL literally: text() must not find parameters in it, and must not remove a backslash before a colon."""
    return "\n".join(
        _execute_one(_PARAMETER.sub(r"\\:\1", re.sub(r"\\(?=:)", r"\\\\", each))) for each in statements
    )


def _execute_one(sql: str) -> str:
    pieces = [piece for line in sql.splitlines(keepends=True) for piece in _pieces(line)]
    return f"op.execute({' '.join(repr(piece) for piece in pieces)})"


def _pieces(line: str) -> Iterator[str]:
    while len(line) > WIDTH and (end := line.rfind(" ", 1, WIDTH)) > 0:
        yield line[: end + 1]
        line = line[end + 1 :]
    yield line


def _render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:  # noqa: ANN401  Alembic's hook
    """Write PostgreSQL's type instead of ours: a migration must mean the same when our types do not exist any more."""
    if kind != "type":
        return False
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's gap
    if isinstance(item, TypeDecorator) and not type(item).__module__.startswith("sqlalchemy."):
        item = item.load_dialect_impl(dialect)
        return _render_item(kind, item, context) or _repr_type(item, context)
    if isinstance(item, sa.Enum):
        if not item.native_enum:
            return f"sa.String(length={item.length})"
        context.imports.add("from sqlalchemy.dialects import postgresql")
        schema = f", schema={item.schema!r}" if item.schema else ""
        return f"postgresql.ENUM({', '.join(map(repr, item.enums))}, name={item.name!r}{schema}, create_type=False)"
    return False


def _repr_type(item: Any, context: AutogenContext) -> str:  # noqa: ANN401  as above
    column = sa.Column("x", item)
    return (
        render_op_text(context, ops.AddColumnOp("x", column))
        .partition("'x', sa.Column('x', ")[2]
        .rpartition(", nullable")[0]
    )


_OPTIONS: dict[str, Any] = {
    "sqlalchemy_module_prefix": "sa.",
    "alembic_module_prefix": "op.",
    "user_module_prefix": None,
    "render_as_batch": False,
    "render_item": _render_item,
}
