"""What a database holds, in numbers that are the same for the same rows, whatever the order, server or version."""

from collections.abc import Callable, Iterator

import psycopg
from psycopg import sql
from pydantic import BaseModel

# The text of a value depends on these. Row security would hide rows, where pg_dump refuses.
_PINNED = (
    "SET search_path = ''; SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; "
    "SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET xmlbinary = 'base64'; "
    "SET quote_all_identifiers = off; SET row_security = off"
)

# What pg_dump takes as it is: not what belongs to an extension, and no materialized view, which it computes anew.
_RELATIONS = r"""
    SELECT n.nspname, c.relname, c.relkind, s.seqincrement > 0, s.seqcycle,
           ARRAY(SELECT attname FROM pg_catalog.pg_attribute
                 WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v'
                 ORDER BY attname COLLATE "C")
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = c.oid
    WHERE c.relkind IN ('r', 'S') AND c.relpersistence <> 't'
      AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
# This hash of a text decides in which partition a row lies, so PostgreSQL cannot change it.
_ROWS = """
    SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text COLLATE "C", 0)), 0)::text FROM ONLY {table}
"""
_LARGE_OBJECTS = """
    SELECT count(*), coalesce(sum(hashtextextended(
        oid::text || ' ' || encode(sha256(lo_get(oid)), 'hex') COLLATE "C", 0)), 0)::text
    FROM pg_catalog.pg_largeobject_metadata
"""


class Rows(BaseModel):
    """How many rows, or large objects, there are, and a sum over their text."""

    count: int
    checksum: str


class Table(Rows):
    """The rows of one table."""

    schema_name: str
    name: str


class Sequence(BaseModel):
    """Where a sequence stands. It is in no snapshot: those who write move it on."""

    schema_name: str
    name: str
    last_value: int
    is_called: bool
    ascends: bool
    cycles: bool

    def is_behind(self, other: "Sequence") -> bool:
        """Whether this one would give out again what the other gave out already."""
        if self.cycles:
            return False
        mine, theirs = ((each.last_value, each.is_called) for each in (self, other))
        return mine < theirs if self.ascends else (-mine[0], mine[1]) < (-theirs[0], theirs[1])


class Figures(BaseModel):
    """What a database holds, in numbers."""

    tables: list[Table]
    sequences: list[Sequence]
    large_objects: Rows

    @property
    def rows(self) -> int:
        return sum(table.count for table in self.tables)


def pin(connection: psycopg.Connection) -> None:
    """Have the session show every value as every other session that is pinned does."""
    connection.execute(_PINNED)


def read_figures(connection: psycopg.Connection, tell: Callable[[str], None] = lambda _: None) -> Figures:
    """Compute the figures in the caller's transaction, on a session that is pinned."""
    tables, sequences = [], []
    relations = connection.execute(_RELATIONS).fetchall()
    for schema, name, kind, ascends, cycles, columns in relations:
        if kind == "S":
            statement = sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, name))
            [(last_value, is_called)] = connection.execute(statement).fetchall()
            sequences.append(
                Sequence(
                    schema_name=schema, name=name, last_value=last_value, is_called=is_called, ascends=ascends,
                    cycles=cycles,
                )
            )  # fmt: skip
        else:
            tell(f"{schema}.{name}")
            statement = sql.SQL(_ROWS).format(
                columns=sql.SQL(", ").join(map(sql.Identifier, columns)), table=sql.Identifier(schema, name)
            )
            [(count, checksum)] = connection.execute(statement).fetchall()
            tables.append(Table(schema_name=schema, name=name, count=count, checksum=checksum))
    [(count, checksum)] = connection.execute(_LARGE_OBJECTS).fetchall()
    return Figures(tables=tables, sequences=sequences, large_objects=Rows(count=count, checksum=checksum))


def differences(expected: Figures, found: Figures) -> Iterator[str]:
    """Say how what was found differs from what was expected; nothing where it does not."""
    theirs = {(table.schema_name, table.name): table for table in found.tables}
    for table in expected.tables:
        other = theirs.pop((table.schema_name, table.name), None)
        name = f"table {table.schema_name}.{table.name}"
        if other is None:
            yield f"{name} is missing"
        elif other.count != table.count:
            yield f"{name} has {other.count:,} rows and not {table.count:,}"
        elif other.checksum != table.checksum:
            yield f"{name} has {table.count:,} rows, but not the same"
    yield from (f"table {schema}.{name} was not there" for schema, name in theirs)
    if expected.large_objects != found.large_objects:
        yield "the large objects are not the same"
    standing = {(each.schema_name, each.name): each for each in found.sequences}
    for sequence in expected.sequences:
        now = standing.get((sequence.schema_name, sequence.name))
        name = f"sequence {sequence.schema_name}.{sequence.name}"
        if now is None:
            yield f"{name} is missing"
        elif now.is_behind(sequence):
            yield f"{name} stands at {now.last_value} and not at {sequence.last_value}"
