"""Changes of models, each with the models before and after it; the tests draft each change in both directions."""
# ruff: noqa: E501  SQLAlchemy's arguments; a change is a line or two

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import (
    CheckConstraint,
    Computed,
    Connection,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)  # fmt: skip
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.types import TypeDecorator, UserDefinedType

from backend.models.models import Base
from backend.utc import KEEP_TIMESTAMPS_FUNCTION, keep_timestamps_trigger

Change = Callable[[MetaData], object]


class Money(TypeDecorator[int]):
    impl = sa.Numeric(12, 2)
    cache_ok = True


class Point(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "point"


def make(name: str, *parts: Any, **options: Any) -> Change:
    """Return a change that adds a table. Its parts are made with the table, because a part belongs to one table."""
    key = (
        []
        if any(getattr(each, "has_key", False) for each in parts)
        else [c("id", sa.BigInteger, part(Identity)(), primary_key=True)]
    )
    return lambda models: Table(name, models, *(each() for each in [*key, *parts]), **options)


def c(name: str, *arguments: Any, **options: Any) -> Callable[[], sa.Column[Any]]:
    def made() -> sa.Column[Any]:
        return sa.Column(
            name, *(a() if callable(a) and not isinstance(a, type) else a for a in arguments), **options
        )

    made.has_key = bool(options.get("primary_key"))  # type: ignore[attr-defined]  # a note for `make`, on the function
    return made


def things(*parts: Any, **options: Any) -> Change:
    return make("things", c("name", Text), *parts, **options)


def company(*parts: Any) -> Change:
    """Return a change that adds columns to `companies`, which has rows."""

    def change(models: MetaData) -> None:
        for made in parts:
            models.tables["companies"].append_column(made())

    return change


def ddl(*statements: str, when: str = "after_create", of: str | None = None) -> Change:
    written = [sa.DDL(each.replace("%", "%%")) for each in statements]  # type: ignore[no-untyped-call]  # SQLAlchemy's gap

    def change(models: MetaData) -> None:
        for each in written:
            event.listen(models.tables[of] if of else models, when, each)

    return change


def copied_models() -> MetaData:
    """Copy the models' tables, with the trigger on each table with timestamps."""
    copy = MetaData(naming_convention=Base.metadata.naming_convention)
    ddl(KEEP_TIMESTAMPS_FUNCTION, when="before_create")(copy)
    for table in Base.metadata.sorted_tables:
        table.to_metadata(copy)
        if "updated_at" in table.c:
            ddl(keep_timestamps_trigger(table.name), of=table.name)(copy)
    return copy


def take(connection: Connection, body: str) -> None:
    """Run the body of a migration like the file."""
    operations = Operations(MigrationContext.configure(connection))
    exec(body, {"op": operations, "sa": sa, "postgresql": pg})  # noqa: S102  what was drafted


def all_of(*changes: Change) -> Change:
    return lambda models: [change(models) for change in changes]


def kind(*values: str, **options: Any) -> Enum:
    return Enum(*values, name="company_kind", **options)


def part(of: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """Return a function that makes a part later, with the arguments that are passed now."""
    return lambda *arguments, **options: lambda: of(*arguments, **options)


def nothing(_models: MetaData) -> None:
    """Leave the models as they are."""


check, index, unique, fk, computed, identity = map(
    part, (CheckConstraint, Index, UniqueConstraint, ForeignKey, Computed, Identity)
)
fks = part(lambda column, target, **options: ForeignKeyConstraint([column], [target], **options))

# One for each way in which a type is written.
TYPES = [
    pg.ARRAY(Text), pg.ARRAY(Integer, dimensions=2), pg.TSTZRANGE(), pg.INT8MULTIRANGE(), pg.JSONB(), sa.JSON(), pg.INET(), pg.BIT(5, varying=True),
    pg.INTERVAL(fields="DAY TO SECOND"), pg.TIME(timezone=True, precision=2), sa.Numeric(10, 2), String(20), sa.LargeBinary(), sa.Uuid(), sa.PickleType(),
    Money(), Point(), Text(collation="C"), Enum("a", "it's", name="kind_a"), pg.ENUM("x", "y", name="kind_b"), pg.ARRAY(Enum("p", "q", name="kind_c")),
    pg.DOMAIN("short_name", Text, check="VALUE <> ''"), Enum("m", "n", native_enum=False), Text().with_variant(Integer(), "sqlite"),
]  # fmt: skip
ALL_TYPES = things(*(c(f"c{number}", type_) for number, type_ in enumerate(TYPES)))
VIEWS = ("CREATE VIEW seen AS SELECT a, name FROM things", "CREATE VIEW again AS SELECT a FROM seen")

CHANGES: dict[str, tuple[Change, Change]] = {
    "every type in new columns": (things(), ALL_TYPES),
    "value added to an enumeration": (company(c("kind", kind("a", "b"))), company(c("kind", kind("a", "c", "b")))),
    "added value is the default": (
        things(c("k", kind("a", "b"), server_default="a")), things(c("k", kind("a", "b", "c"), server_default="c")),
    ),
    "enumeration in a check and an index": (
        things(c("k", kind("a", "b")), check("k <> 'b'", name="k"), index("ix_k", "k", postgresql_where=text("k = 'a'"))),
        things(c("k", kind("b", "a")), check("k <> 'b'", name="k"), index("ix_k", "k", postgresql_where=text("k = 'a'"))),
    ),
    "enumeration to text": (things(c("k", kind("a"), server_default="a")), things(c("k", Text, server_default="a"))),
    "one enumeration, three columns": (nothing, all_of(things(c("a", kind("a")), c("b", kind("a"))), company(c("c", kind("a"))))),
    "checked enumeration": (
        nothing, things(c("k", lambda: Enum("a", "b", name="k", native_enum=False, create_constraint=True))),
    ),
    "schemas that no table is in": (nothing, lambda m: things(
        c("kinds", pg.ARRAY(kind("a", "b c", schema="my Kinds"))), c("n", Integer, server_default=Sequence("numbers", metadata=m, schema="audit").next_value()),
    )(m)),
    "defaults": (
        things(c("a", Integer, server_default="1"), c("f", Text)),
        things(
            c("a", Integer, server_default="2"), c("b", Text, server_default="it's 100%"), c("d", Text, server_default=":x {y} %(z)s \\:w"),
            c("e", sa.Uuid, server_default=text("gen_random_uuid()")), c("f", Text, server_default=""), c("g", pg.ARRAY(Text), server_default="{}"),
            c("h", sa.Interval, server_default=text("interval '1 day'")), c("i", Text, server_default=text("lower('A' || E'\\n')")),
        ),
    ),
    "function as a default": (nothing, all_of(
        ddl("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'", when="before_create"), things(c("a", Integer, server_default=text("one()"))),
    )),
    "type of a column that another is computed of": (
        things(c("a", Integer), c("b", Integer, computed("a * 2", persisted=True)), index("ix_b", "b")),
        things(c("a", sa.BigInteger), c("b", Integer, computed("a * 2", persisted=True)), index("ix_b", "b")),
    ),
    "computed column was plain": (things(c("b", Text)), things(c("b", Text, computed("upper(name)", persisted=True)))),
    "schema": (nothing, make(
        "events", c("company_id", fk("companies.id"), index=True), c("parent", fk("audit.events.id")), check("id > 0", name="id"), schema="audit", comment="it's",
    )),
    "table of a schema": (
        make("events", schema="audit"), make("events", c("x", Text, index=True), unique("x"), c("y", Integer), schema="audit"),
    ),
    "default schema by its name": (nothing, make("events", schema="public")),
    "two tables that refer to each other": (
        nothing, all_of(make("lefts", c("r", sa.BigInteger, fk("rights.id"))), make("rights", c("l", sa.BigInteger, fk("lefts.id")))),
    ),
    "NOT NULL with a default": (things(c("a", Text)), things(c("a", Text, nullable=False, server_default="x"))),
    "types": (
        things(c("a", Integer), c("b", String(5)), c("d", Text, server_default="1"), c("e", sa.DateTime), c("f", sa.Boolean), c("g", Text)),
        things(c("a", sa.BigInteger), c("b", Text), c("d", Integer, server_default="1"), c("e", sa.DateTime(timezone=True)), c("f", Integer), c("g", Text(collation="C"))),
    ),
    "index that is built concurrently": (things(), things(c("a", Text, index=False), index("ix_a", "a", postgresql_concurrently=True))),
    "type of a column in a view": (all_of(things(c("a", Integer)), ddl(*VIEWS)), all_of(things(c("a", sa.BigInteger)), ddl(*VIEWS))),
    "identity": (
        things(c("a", Integer, nullable=False)),
        things(c("a", Integer, identity(always=True, start=10, increment=5, cycle=True, cache=3, maxvalue=1000), nullable=False)),
    ),
    "options of an identity": (things(c("a", Integer, identity(start=2))), things(c("a", Integer, identity(always=True, start=3, minvalue=3)))),
    "table with a serial is dropped": (make("counted", c("n", Integer, primary_key=True)), nothing),
    "serial becomes identity": (make("counted", c("n", Integer, primary_key=True)), make("counted", c("n", sa.BigInteger, identity(), primary_key=True))),
    "sequence": (nothing, lambda m: (Sequence("numbers", metadata=m, start=5), things(c("n", Integer, server_default=text("nextval('numbers')")))(m))),
    "exclusion": (
        things(c("at", pg.TSTZRANGE)),
        things(c("at", pg.TSTZRANGE), lambda: pg.ExcludeConstraint(("at", "&&")), lambda: pg.ExcludeConstraint(("at", "="), name="ex", where=text("name <> 'x'"))),
    ),
    "indexes": (
        things(c("a", Text), c("j", pg.JSONB), index("ix_changed", "a")),
        things(
            c("a", Text), c("j", pg.JSONB), index("ix_lower", text("lower(a)")), index("ix_part", "a", unique=True, postgresql_where=text("a <> '100%'")),
            index("ix_cover", "a", postgresql_include=["name"]), index("ix_gin", "j", postgresql_using="gin", postgresql_ops={"j": "jsonb_path_ops"}),
            index("ix_nulls", "a", unique=True, postgresql_nulls_not_distinct=True), index("ix_changed", text("a DESC NULLS LAST"), postgresql_with={"fillfactor": 50}),
        ),
    ),
    "constraints": (
        things(c("a", Text), c("c", sa.BigInteger), check("c > 0", name="c"), unique("name", name="uq")),
        things(
            c("a", Text), c("c", sa.BigInteger), check("c > 1", name="c"), unique("name", "c", name="uq"), unique("a", postgresql_nulls_not_distinct=True),
            unique("name", deferrable=True, initially="DEFERRED"), check("a ~ '^\\d+\\:x$' OR a LIKE '10%' OR a <> '{}'", name="odd"), unique("c", postgresql_include=["a"]),
            fks("c", "companies.id", ondelete="SET NULL (c)", onupdate="CASCADE", deferrable=True, initially="DEFERRED", match="FULL"),
        ),
    ),
    "unique key that others refer to": (
        all_of(make("keys", c("k", Text), c("l", Text), unique("k", name="uq_k")), make("doors", c("k", Text, fk("keys.k")))),
        all_of(make("keys", c("k", Text), c("l", Text), unique("k", name="uq_k", postgresql_include=["l"])), make("doors", c("k", Text, fk("keys.k")))),
    ),
    "primary key": (make("keyed", c("a", Integer, primary_key=True), c("b", Integer, server_default="0", nullable=False)),
                    make("keyed", c("a", Integer, primary_key=True, autoincrement=False), c("b", Integer, server_default="0", primary_key=True))),
    "odd names": (nothing, make(
        "Order Details", c("Id", sa.BigInteger, primary_key=True), c("select", Text), c("a.b", Text), c('q"q', Text, key="qq"), c("100%", Text),
        check("\"select\" <> ''", name="Odd Check"), index("Ix Odd", "select"), comment="100% \"theirs\", isn't it: {x}? \\",
    )),
    "parts of odd names": (make("user", c("order", Text)), make("user", c("order", String), c("Group", Text, index=True, comment="it's"), unique("Group"))),
    "comments and storage": (
        things(comment="a", postgresql_with={"fillfactor": 70}),
        things(c("a", Text, comment="'quoted' \\ 100% :x"), comment="it's", prefixes=["UNLOGGED"], postgresql_with={"fillfactor": 80, "autovacuum_enabled": "false"}),
    ),
    "view, function, trigger": (things(), all_of(things(), ddl(
        "CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE NOTICE '%: it''s', NEW.name; RETURN NEW; END $f$",
        "CREATE TRIGGER loud BEFORE INSERT ON things FOR EACH ROW WHEN (NEW.name IN ('a', 'b')) EXECUTE FUNCTION loud()",
        "CREATE VIEW named AS SELECT id, name FROM things WHERE name LIKE 'a%'", "CREATE VIEW again AS SELECT * FROM named",
        "CREATE MATERIALIZED VIEW counts AS SELECT count(*) AS n FROM things", "CREATE UNIQUE INDEX ix_counts ON counts (n)",
    ))),
    "columns of a view, result of a function": (
        all_of(things(), ddl("CREATE VIEW v AS SELECT id FROM things", "CREATE VIEW w AS SELECT id FROM v", "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'")),
        all_of(things(), ddl("CREATE VIEW v AS SELECT name, id FROM things", "CREATE VIEW w AS SELECT id FROM v", "CREATE FUNCTION f(a int) RETURNS text LANGUAGE sql AS 'SELECT $$x:y$$::text'")),
    ),
    "policy, rule, statistics": (things(), all_of(things(), ddl(
        "ALTER TABLE things ENABLE ROW LEVEL SECURITY", "CREATE POLICY own ON things FOR SELECT USING (name = current_user)",
        "CREATE RULE quiet AS ON DELETE TO things DO INSTEAD NOTHING", "CREATE STATISTICS st ON id, name FROM things",
    ))),
    "condition of a domain": (
        things(c("a", pg.DOMAIN("short", Text, check="VALUE <> ''"))), things(c("a", pg.DOMAIN("short", Text, check="VALUE <> 'x'"))),
    ),
    "composite and range types": (nothing, ddl("CREATE TYPE pair AS (a int, b text)", "CREATE TYPE floats AS RANGE (SUBTYPE = float8)")),
    "extensions": (nothing, all_of(
        ddl("CREATE EXTENSION IF NOT EXISTS citext", "CREATE EXTENSION IF NOT EXISTS hstore", when="before_create"), things(c("a", pg.CITEXT), c("b", pg.HSTORE)),
    )),
    "partitions": (nothing, all_of(
        make("logs", c("at", sa.Date, primary_key=True), c("x", Text, index=True), postgresql_partition_by="RANGE (at)"),
        ddl("CREATE TABLE logs_24 PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')", "CREATE TABLE logs_rest PARTITION OF logs DEFAULT"),
    )),
    "inheritance": (nothing, all_of(things(), make("special", c("id", sa.BigInteger, primary_key=True, autoincrement=False), c("extra", Text), postgresql_inherits="things"))),
}  # fmt: skip
