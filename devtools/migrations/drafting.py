"""Draft a migration from the models: what Alembic sees, and what it does not, tried on the spot.

Alembic's comparison is run first. Its steps are then taken in a savepoint, and whatever still differs from the models,
by the catalog's word, is added as a step of its own: CHECKs, triggers, functions, predicates, storage. The way back is
found alike. What no step brings about is said, in the file and to who asked.

This imports Alembic as it is imported: only who drafts may import it.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.migration import MigrationContext
from alembic.operations import Operations, ops
from sqlalchemy import CheckConstraint, Connection, MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import TextClause, conv

from backend.migrations import catalog, drift
from backend.migrations.catalog import Catalog
from backend.migrations.drift import Difference
from backend.models.types import TextEnum
from backend.utc import UtcDateTime
from devtools.migrations import risks
from devtools.migrations.statements import statements

WIDTH = 90  # of a comment or a piece of SQL, before its indentation
_CONDITION = re.compile(r"CHECK \((.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Draft:
    """The bodies of a migration's two functions, unindented, and what is to be known of them."""

    upgrade: str
    downgrade: str
    imports: tuple[str, ...]
    remarks: tuple[str, ...]
    """The sentences that stand in the file as comments, for those who will not read it."""
    missing: tuple[str, ...]
    """What the draft does not bring about, and a person has to."""


class Remark(ops.MigrateOperation):
    """A comment in the file: nothing is done."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence


class Statement(ops.ExecuteSQLOp):
    """SQL as it stands, which SQLAlchemy must not search for parameters."""

    def __init__(self, sql: str) -> None:
        super().__init__(_without_parameters(sql))


class Check(ops.CreateCheckConstraintOp):
    """A CHECK whose condition is written as it was given; Alembic's doubles every `%` in it."""


def draft(connection: Connection, metadata: MetaData) -> Draft | None:
    """Draft what takes this schema to these models and back, or None where nothing differs.

    It is tried here, in a savepoint that is rolled back.
    """
    before = catalog.read(connection)
    wanted = catalog.expected(connection, metadata)
    if not drift.compare(wanted, before):
        return None
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    script = produce_migrations(context, metadata)
    up, down = [list(_flat(way.ops)) for way in (script.upgrade_ops, script.downgrade_ops) if way is not None]
    up = [_found_if_there(step, before) for step in up]
    told = AutogenContext(context, metadata, _OPTIONS)
    missing: list[str] = []
    with _undone(connection, missing):
        up += _complete(connection, up, wanted, _conditions(metadata), told, missing=missing)
        down += _complete(connection, down, before, {}, told, missing=missing)
    remarked = list(_remarked(up, before, wanted, connection))
    to_complete = [Remark(f"To be completed: {sentence}.") for sentence in missing]
    return Draft(
        _body([*to_complete, *remarked], told),
        _body(down, told),
        tuple(sorted(told.imports)),
        tuple(step.sentence for step in remarked if isinstance(step, Remark)),
        tuple(missing),
    )


@contextmanager
def _undone(connection: Connection, missing: list[str]) -> Iterator[None]:
    """Lend a savepoint that is rolled back; what the database refuses in it is added to what is missing."""
    savepoint = connection.begin_nested()
    try:
        yield
    except DBAPIError as error:
        refused = str(error.orig).splitlines()[0]
        missing.append(f"PostgreSQL refused, and what follows was not tried: {refused}")
    finally:
        savepoint.rollback()


def _complete(
    connection: Connection,
    steps: Sequence[ops.MigrateOperation],
    wanted: Catalog,
    conditions: dict[str, str],
    told: AutogenContext,
    *,
    missing: list[str],
) -> list[ops.MigrateOperation]:
    """Run the steps as they will be written, return what has to be added to them, and tell what is missing still."""
    _run(connection, _body(steps, told), told.imports)
    added = [
        step
        for difference in sorted(drift.compare(wanted, catalog.read(connection)), key=_rank)
        for step in _steps(difference, conditions)
    ]
    _run(connection, _body(added, told), told.imports)
    missing += [
        f"{difference.thing.table or 'beside the tables'}, {difference.tell('what this makes', 'what is wanted')}"
        for difference in drift.compare(wanted, catalog.read(connection))
    ]
    return added


def _run(connection: Connection, body: str, imports: Iterable[str]) -> None:
    operations = Operations(MigrationContext.configure(connection))
    # What was just written here, with what the file will import.
    exec("\n".join([*sorted(imports), body]), {"op": operations, "sa": sa})  # noqa: S102  see above


def _steps(difference: Difference, conditions: dict[str, str]) -> list[ops.MigrateOperation]:
    """Return what brings one difference about; a CHECK in the models' own words, as far as they are known."""
    thing = difference.thing
    if thing.kind == "CHECK":
        dropped = ops.DropConstraintOp(conv(thing.name), thing.table, type_="check")
        found = _CONDITION.fullmatch(difference.expected.get("definition", ""))
        condition = conditions.get(thing.name, _without_parameters(found[1]) if found else None)
        made = condition and Check(conv(thing.name), thing.table, condition)
        if difference.what == "extra":
            return [dropped]
        if made:
            return [made] if difference.what == "missing" else [dropped, made]
    return [Statement(sql) for sql in statements(difference)]


def _rank(difference: Difference) -> int:
    """What others stand on comes first when it is made and last when it is dropped."""
    if difference.what == "extra":
        order = ("trigger", "policy", "rule", "view", "materialized view", "CHECK", "index")
        return order.index(difference.thing.kind) if difference.thing.kind in order else 30
    early = ("function", "procedure", "table", "column", "CHECK")
    late = ("index", "view", "materialized view", "trigger")
    if difference.thing.kind in early:
        return 10 + early.index(difference.thing.kind)
    return 21 + late.index(difference.thing.kind) if difference.thing.kind in late else 20


def _conditions(metadata: MetaData) -> dict[str, str]:
    """Return the condition of each named CHECK in the models' own words, where they are words."""
    return {
        str(constraint.name): constraint.sqltext.text
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint) and isinstance(constraint.sqltext, TextClause)
    }


def _found_if_there(step: ops.MigrateOperation, before: Catalog) -> ops.MigrateOperation:
    """Let an index on a table that may be big be there already, built by hand without a lock."""
    if isinstance(step, ops.CreateIndexOp) and risks.is_there(step.table_name, before):
        step.if_not_exists = True
    return step


def _without_parameters(sql: str) -> str:
    """Return SQL as SQLAlchemy's `text()` wants it, which takes `:name` for a parameter."""
    return re.sub(r"(?<![:\w\\]):(?=\w)", r"\:", sql)


def _flat(steps: Iterable[ops.MigrateOperation]) -> Iterator[ops.MigrateOperation]:
    for step in steps:
        if isinstance(step, ops.OpContainer):
            yield from _flat(step.ops)
        else:
            yield step


def _remarked(
    steps: Sequence[ops.MigrateOperation], before: Catalog, wanted: Catalog, connection: Connection
) -> Iterator[ops.MigrateOperation]:
    for step in steps:
        for sentence in risks.of(step, before, wanted, connection):
            yield Remark(sentence)
        yield step


def _body(steps: Sequence[ops.MigrateOperation], context: AutogenContext) -> str:
    lines = [
        render.render_op_text(context, step)
        if isinstance(step, Remark | Statement | Check)
        # What Alembic compiles is meant for a driver, which takes %% for one.
        else render.render_op_text(context, step).replace("%%", "%")
        for step in steps
    ]
    if not any(not isinstance(step, Remark) for step in steps):
        lines.append("pass")
    return "\n".join(lines)


def _render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    # A migration is history: it must mean the same when the project's own types have changed or gone.
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, TextEnum):
        return "sa.Text()"
    return False


_OPTIONS: dict[str, Any] = {
    "sqlalchemy_module_prefix": "sa.",
    "alembic_module_prefix": "op.",
    "user_module_prefix": None,
    "render_as_batch": False,
    "render_item": _render_item,
}


@renderers.dispatch_for(Remark)
def _render_remark(_context: AutogenContext, remark: Remark) -> str:
    """Wrap the prose, and leave what is indented, which is to be copied, in a line of its own."""
    lines: list[str] = []
    for line in remark.sentence.splitlines():
        whole = line.startswith(" ")
        lines += (
            [line] if whole else textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        )
    return "\n".join(f"# {line}" for line in lines)


@renderers.dispatch_for(Check)
def _render_check(_context: AutogenContext, check: Check) -> str:
    name = f"op.f({str(check.constraint_name)!r})"
    return f"op.create_check_constraint({name}, {check.table_name!r}, {check.condition!r})"


@renderers.dispatch_for(Statement)
def _render_statement(_context: AutogenContext, statement: Statement) -> str:
    """Render the lines as literals that Python joins, for a literal of many lines changes with its indentation."""
    pieces = [piece for line in str(statement.sqltext).splitlines(keepends=True) for piece in _pieces(line)]
    return f"op.execute({' '.join(repr(piece) for piece in pieces)})"


def _pieces(line: str) -> Iterator[str]:
    while len(line) > WIDTH and (end := line.rfind(" ", 1, WIDTH)) > 0:
        yield line[: end + 1]
        line = line[end + 1 :]
    yield line
