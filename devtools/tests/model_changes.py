"""Changes of models, each as what the models are before it and after it; drafts must manage both directions."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import MetaData, Table
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.types import TypeDecorator, UserDefinedType

Change = Callable[[MetaData], object]


class Money(TypeDecorator[int]):
    impl = sa.Numeric(12, 2)
    cache_ok = True


class Point(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "point"


def things(*parts: Any, **options: Any) -> Change:
    """Return what adds a table `things` with an id, a name and these parts."""
    return lambda models: Table(
        "things",
        models,
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text),
        *(part() if callable(part) else part for part in parts),
        **options,
    )


def col(*arguments: Any, **options: Any) -> Callable[[], sa.Column[Any]]:
    return lambda: sa.Column(*arguments, **options)


def ddl(*statements: str) -> Change:
    def listen(models: MetaData) -> None:
        for statement in statements:
            sa.event.listen(models, "after_create", sa.DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]

    return listen


def all_of(*changes: Change) -> Change:
    def change(models: MetaData) -> None:
        for each in changes:
            each(models)

    return change


def company(*parts: Any) -> Change:
    """Return what adds columns and constraints to `companies`, which has rows."""

    def change(models: MetaData) -> None:
        for part in parts:
            made = part() if callable(part) else part
            models.tables["companies"].append_column(made) if isinstance(made, sa.Column) else None
            models.tables["companies"].append_constraint(made) if isinstance(made, sa.Constraint) else None

    return change


def kinds(*values: str, **options: Any) -> sa.Enum:
    return sa.Enum(*values, name="company_kind", **options)


def circle(models: MetaData) -> None:
    Table("left_side", models, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("r", sa.ForeignKey("right_side.id")))
    Table("right_side", models, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("l", sa.ForeignKey("left_side.id")))


def nothing(_models: MetaData) -> None:
    pass


def without(column: str) -> Change:
    """Return what takes a column out of `companies`, as if it had never been there."""

    def change(models: MetaData) -> None:
        old = models.tables["companies"]
        kept = [each for each in old.constraints if isinstance(each, sa.CheckConstraint) and column not in str(each.sqltext)]
        parts = [part.copy() if False else part for part in ()]
        del parts
        copy = MetaData()
        made = old.to_metadata(copy)
        models.remove(old)
        Table(
            "companies",
            models,
            *(
                sa.Column(each.name, each.type, *( [sa.Identity(always=True)] if each.name == "id" else []),
                          primary_key=each.primary_key, nullable=each.nullable,
                          server_default=None if each.name == "id" else each.server_default.arg if each.server_default else None)
                for each in made.columns if each.name != column
            ),
            *(sa.CheckConstraint(str(each.sqltext), name=sa.sql.elements.conv(each.name)) for each in kept),
        )

    return change


TYPES = [
    pg.ARRAY(sa.Text), pg.ARRAY(sa.Integer, dimensions=2), pg.INT4RANGE(), pg.INT8RANGE(), pg.NUMRANGE(), pg.DATERANGE(),
    pg.TSRANGE(), pg.TSTZRANGE(), pg.INT4MULTIRANGE(), pg.TSTZMULTIRANGE(), pg.JSON(), pg.JSONB(), sa.JSON(), pg.INET(),
    pg.CIDR(), pg.MACADDR(), pg.MACADDR8(), pg.TSVECTOR(), pg.TSQUERY(), pg.BIT(3), pg.BIT(varying=True), pg.BIT(5, varying=True),
    pg.INTERVAL(), pg.INTERVAL(fields="DAY TO SECOND"), pg.INTERVAL(precision=3), pg.OID(), pg.REGCLASS(), pg.MONEY(), pg.UUID(),
    pg.BYTEA(), pg.TIMESTAMP(precision=3), pg.TIMESTAMP(timezone=True), pg.TIME(timezone=True, precision=2), pg.DOUBLE_PRECISION(),
    pg.REAL(), sa.Numeric(), sa.Numeric(10, 2), sa.Float(), sa.SmallInteger(), sa.String(), sa.String(20), sa.CHAR(3), sa.Unicode(),
    sa.LargeBinary(), sa.Date(), sa.Time(), sa.DateTime(), sa.Interval(), sa.Boolean(), sa.Uuid(), sa.PickleType(), Money(), Point(),
    sa.Text(collation="C"), sa.Double(), sa.Enum("a", "it's", name="kind_a"), pg.ENUM("x", "y", name="kind_b"),
    pg.DOMAIN("short_name", sa.Text, check="VALUE <> ''"), pg.ARRAY(sa.Enum("p", "q", name="kind_c")), sa.Enum("m", "n", native_enum=False),
    sa.Text().with_variant(sa.Integer(), "sqlite"),
]  # fmt: skip
if hasattr(pg, "BitString"):
    pass

CHANGES: dict[str, tuple[Change, Change]] = {
    "plain table": (nothing, things()),
    "all types": (things(), things(*(col(f"c{number}", type_) for number, type_ in enumerate(TYPES)))),
    "all types, new table": (nothing, things(*(col(f"c{number}", type_) for number, type_ in enumerate(TYPES)))),
    "native enum": (nothing, company(col("kind", kinds("a", "b"), server_default="a", nullable=False))),
    "native enum, value added": (company(col("kind", kinds("a", "b"))), company(col("kind", kinds("a", "c", "b")))),
    "native enum, added value is the default": (
        company(col("kind", kinds("a", "b"), server_default="a")), company(col("kind", kinds("a", "b", "c"), server_default="c")),
    ),
    "native enum in a check and an index": (
        things(col("k", kinds("a", "b")), lambda: sa.CheckConstraint("k <> 'b'", name="k"), lambda: sa.Index("ix_k", "k", postgresql_where=sa.text("k = 'a'"))),
        things(col("k", kinds("b", "a")), lambda: sa.CheckConstraint("k <> 'b'", name="k"), lambda: sa.Index("ix_k", "k", postgresql_where=sa.text("k = 'a'"))),
    ),
    "enum to text": (things(col("k", kinds("a", "b"), server_default="a")), things(col("k", sa.Text, server_default="a"))),
    "two columns of one enum": (nothing, all_of(things(col("a", kinds("a")), col("b", kinds("a"))), company(col("c", kinds("a"))))),
    "checked enum": (nothing, company(col("kind", sa.Enum("a", "b", name="kind", native_enum=False, create_constraint=True)))),
    "enum in a schema": (nothing, company(col("kind", kinds("a", schema="audit")))),
    "type decorator": (nothing, company(col("price", Money), col("at", Point))),
    "apostrophe": (nothing, company(col("a", sa.Text, server_default="it's"), col("b", sa.Text, server_default=sa.text("'o''clock'")))),
    "json default": (nothing, company(col("a", sa.JSON, server_default="{}", nullable=False), col("b", pg.JSON, server_default=sa.text("'[1]'::json")))),
    "defaults": (
        things(col("a", sa.Integer, server_default="1"), col("f", sa.Text)),
        things(
            col("a", sa.Integer, server_default="2"), col("b", sa.Text, server_default="100%"), col("c", sa.Text, server_default=":x {y} %(z)s \\:w"),
            col("d", sa.DateTime, server_default=sa.func.now()), col("e", sa.Uuid, server_default=sa.text("gen_random_uuid()")),
            col("f", sa.Text, server_default=""), col("g", sa.Boolean, server_default=sa.false()), col("h", pg.ARRAY(sa.Text), server_default="{}"),
            col("i", sa.Numeric, server_default=sa.text("1.5::numeric")), col("j", sa.Interval, server_default=sa.text("interval '1 day'")),
            col("k", sa.Text, server_default=sa.text("lower('A' || 'B')")), col("l", sa.Text, server_default=sa.text("E'a\\nb'")),
        ),
    ),
    "computed": (things(col("a", sa.Integer), col("b", sa.Integer, sa.Computed("a + 1", persisted=True))), things(col("a", sa.Integer), col("b", sa.Integer, sa.Computed("a + 2", persisted=True)))),
    "computed, plain": (things(col("b", sa.Text)), things(col("b", sa.Text, sa.Computed("upper(name)", persisted=True)))),
    "computed, new": (nothing, company(col("u", sa.Text, sa.Computed("upper(name)", persisted=True)))),
    "schema": (nothing, lambda m: Table("events", m, sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True), sa.Column("company_id", sa.ForeignKey("companies.id"), index=True), sa.Column("parent", sa.ForeignKey("audit.events.id")), sa.CheckConstraint("id > 0", name="id"), schema="audit", comment="it's")),
    "schema changed": (lambda m: Table("events", m, sa.Column("id", sa.BigInteger, primary_key=True), schema="audit"), lambda m: Table("events", m, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("x", sa.Text, index=True), sa.UniqueConstraint("x"), schema="audit")),
    "default schema, named": (nothing, lambda m: Table("events", m, sa.Column("id", sa.BigInteger, primary_key=True), schema="public")),
    "circle": (nothing, circle),
    "self-reference": (nothing, lambda m: things(sa.Column("parent", sa.ForeignKey("things.id")))(m)),
    "not null with default": (things(col("a", sa.Text)), things(col("a", sa.Text, nullable=False, server_default="x"))),
    "new, not null with default": (nothing, company(col("a", sa.Text, nullable=False, server_default="x"))),
    "type changes": (
        things(col("a", sa.Integer), col("b", sa.Text), col("c", sa.String(5)), col("d", sa.Text, server_default="1"), col("e", sa.DateTime), col("f", sa.Boolean)),
        things(col("a", sa.BigInteger), col("b", sa.Integer), col("c", sa.String(9)), col("d", sa.Integer, server_default="1"), col("e", sa.DateTime(timezone=True)), col("f", sa.Integer)),
    ),
    "type of a column in a view": (
        all_of(things(col("a", sa.Integer)), ddl("CREATE VIEW seen AS SELECT a, name FROM things")),
        all_of(things(col("a", sa.BigInteger)), ddl("CREATE VIEW seen AS SELECT a, name FROM things")),
    ),
    "identity": (
        things(col("a", sa.Integer, nullable=False)),
        things(col("a", sa.Integer, sa.Identity(always=True, start=10, increment=5, cycle=True, cache=3, maxvalue=1000), nullable=False)),
    ),
    "identity changed": (things(col("a", sa.Integer, sa.Identity(start=2))), things(col("a", sa.Integer, sa.Identity(always=True, start=3, minvalue=3)))),
    "serial": (nothing, lambda m: Table("counted", m, sa.Column("id", sa.Integer, primary_key=True), sa.Column("x", sa.Text))),
    "serial to identity": (lambda m: Table("counted", m, sa.Column("id", sa.Integer, primary_key=True)), lambda m: Table("counted", m, sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True))),
    "sequence": (nothing, lambda m: (sa.Sequence("numbers", metadata=m, start=5, increment=2), things(col("n", sa.BigInteger, server_default=sa.text("nextval('numbers')")))(m))),
    "exclusion": (nothing, things(col("during", pg.TSTZRANGE), lambda: pg.ExcludeConstraint(("during", "&&"), name="ex_things_during", where=sa.text("name <> 'x'"), using="gist"))),
    "unnamed exclusion": (things(col("during", pg.TSTZRANGE)), things(col("during", pg.TSTZRANGE), lambda: pg.ExcludeConstraint(("during", "&&")))),
    "indexes": (
        things(col("a", sa.Text), col("j", pg.JSONB)),
        things(
            col("a", sa.Text), col("j", pg.JSONB), lambda: sa.Index("ix_lower", sa.text("lower(a)")), lambda: sa.Index("ix_part", "a", unique=True, postgresql_where=sa.text("a <> '100%'")),
            lambda: sa.Index("ix_cover", "a", postgresql_include=["name"]), lambda: sa.Index("ix_gin", "j", postgresql_using="gin", postgresql_ops={"j": "jsonb_path_ops"}),
            lambda: sa.Index("ix_desc", sa.text("a DESC NULLS LAST")), lambda: sa.Index("ix_nnd", "a", unique=True, postgresql_nulls_not_distinct=True), lambda: sa.Index("ix_with", "a", postgresql_with={"fillfactor": 50}),
        ),
    ),
    "index changed": (things(col("a", sa.Text), lambda: sa.Index("ix_a", "a")), things(col("a", sa.Text), lambda: sa.Index("ix_a", "a", "name"))),
    "constraints": (
        things(col("a", sa.Text), col("c", sa.BigInteger)),
        things(
            col("a", sa.Text), col("c", sa.BigInteger), lambda: sa.UniqueConstraint("a", postgresql_nulls_not_distinct=True), lambda: sa.UniqueConstraint("name", deferrable=True, initially="DEFERRED"),
            lambda: sa.CheckConstraint("a ~ '^\\d+:x$' AND a LIKE '10%%' AND a NOT LIKE '{}'", name="odd"), lambda: sa.UniqueConstraint("c", postgresql_include=["a"], name="uq_c"),
            lambda: sa.ForeignKeyConstraint(["c"], ["companies.id"], ondelete="SET NULL (c)", onupdate="CASCADE", deferrable=True, initially="DEFERRED", match="FULL"),
        ),
    ),
    "constraints changed": (
        things(col("c", sa.BigInteger), lambda: sa.CheckConstraint("c > 0", name="c"), lambda: sa.ForeignKeyConstraint(["c"], ["companies.id"], ondelete="CASCADE"), lambda: sa.UniqueConstraint("name", name="uq")),
        things(col("c", sa.BigInteger), lambda: sa.CheckConstraint("c > 1", name="c"), lambda: sa.ForeignKeyConstraint(["c"], ["companies.id"], ondelete="SET NULL"), lambda: sa.UniqueConstraint("name", "c", name="uq")),
    ),
    "unique that is referred to": (
        lambda m: (Table("a", m, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("k", sa.Text), sa.Column("l", sa.Text), sa.UniqueConstraint("k", name="uq_a")), Table("b", m, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("k", sa.ForeignKey("a.k")))),
        lambda m: (Table("a", m, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("k", sa.Text), sa.Column("l", sa.Text), sa.UniqueConstraint("k", name="uq_a", deferrable=False, postgresql_include=["l"])), Table("b", m, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("k", sa.ForeignKey("a.k")))),
    ),
    "primary key changed": (
        lambda m: Table("keyed", m, sa.Column("a", sa.BigInteger, primary_key=True), sa.Column("b", sa.BigInteger, server_default="0", nullable=False)),
        lambda m: Table("keyed", m, sa.Column("a", sa.BigInteger, primary_key=True, autoincrement=False), sa.Column("b", sa.BigInteger, server_default="0", primary_key=True)),
    ),
    "odd names": (nothing, lambda m: Table("Order Details", m, sa.Column("Id", sa.BigInteger, primary_key=True), sa.Column("select", sa.Text), sa.Column("a.b", sa.Text), sa.Column('q"q', sa.Text, key="qq"), sa.Column("100%", sa.Text), sa.CheckConstraint("\"select\" <> ''", name="Odd Check"), sa.Index("Ix Odd", "select"), comment="100% \"theirs\", isn't it: {x}?")),
    "odd names changed": (
        lambda m: Table("user", m, sa.Column("Id", sa.BigInteger, primary_key=True), sa.Column("order", sa.Text)),
        lambda m: Table("user", m, sa.Column("Id", sa.BigInteger, primary_key=True), sa.Column("order", sa.Integer), sa.Column("Group", sa.Text, index=True, comment="it's"), sa.UniqueConstraint("Group")),
    ),
    "comments": (things(), lambda m: things(col("a", sa.Text, comment="'quoted' \\ 100% :x"), comment="it's")(m)),
    "comment changed": (things(comment="a"), things(comment="b")),
    "storage": (things(postgresql_with={"fillfactor": 70}), things(postgresql_with={"fillfactor": 80, "autovacuum_enabled": "false"})),
    "unlogged": (nothing, things(prefixes=["UNLOGGED"])),
    "logging changed": (things(), things(prefixes=["UNLOGGED"])),
    "view, function, trigger": (things(), all_of(things(), ddl(
        "CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE NOTICE '%: it''s', NEW.name; RETURN NEW; END $f$",
        "CREATE TRIGGER loud BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION loud()", "CREATE VIEW named AS SELECT id, name FROM things WHERE name LIKE 'a%'",
        "CREATE VIEW renamed AS SELECT * FROM named", "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM things", "CREATE UNIQUE INDEX ix_counted ON counted (n)",
    ))),
    "view changed": (all_of(things(), ddl("CREATE VIEW v AS SELECT id FROM things", "CREATE VIEW w AS SELECT id FROM v")), all_of(things(), ddl("CREATE VIEW v AS SELECT name, id FROM things", "CREATE VIEW w AS SELECT id FROM v"))),
    "function changed": (all_of(things(), ddl("CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'")), all_of(things(), ddl("CREATE FUNCTION f(a int) RETURNS text LANGUAGE sql AS 'SELECT $$x:y$$::text'"))),
    "function as default": (nothing, lambda m: (sa.event.listen(m, "before_create", sa.DDL("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'")), things(col("a", sa.Integer, server_default=sa.text("one()")))(m))),
    "policy, rule, statistics": (things(), all_of(things(), ddl("ALTER TABLE things ENABLE ROW LEVEL SECURITY", "CREATE POLICY own ON things FOR SELECT USING (name = current_user)", "CREATE RULE quiet AS ON DELETE TO things DO INSTEAD NOTHING", "CREATE STATISTICS st ON id, name FROM things"))),
    "domain changed": (things(col("a", pg.DOMAIN("short", sa.Text, check="VALUE <> ''"))), things(col("a", pg.DOMAIN("short", sa.Text, check="VALUE <> 'x'")))),
    "composite type": (nothing, all_of(lambda m: sa.event.listen(m, "before_create", sa.DDL("CREATE TYPE pair AS (a int, b text)")), lambda m: sa.event.listen(m, "before_create", sa.DDL("CREATE TYPE floats AS RANGE (SUBTYPE = float8)")))),
    "extension": (nothing, lambda m: (sa.event.listen(m, "before_create", sa.DDL("CREATE EXTENSION IF NOT EXISTS citext")), sa.event.listen(m, "before_create", sa.DDL("CREATE EXTENSION IF NOT EXISTS hstore")), things(col("a", pg.CITEXT), col("b", pg.HSTORE))(m))),
    "partitions": (nothing, lambda m: (Table("logs", m, sa.Column("at", sa.Date, primary_key=True), sa.Column("x", sa.Text, index=True), postgresql_partition_by="RANGE (at)"), ddl("CREATE TABLE logs_2024 PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')", "CREATE TABLE logs_rest PARTITION OF logs DEFAULT")(m))),
    "inheritance": (nothing, lambda m: (things()(m), Table("special", m, sa.Column("extra", sa.Text), postgresql_inherits="things"))),
    "collation": (things(col("a", sa.Text)), things(col("a", sa.Text(collation="C")))),
    "drop a not null column": (nothing, without("name")),
}  # fmt: skip
