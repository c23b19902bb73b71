"""Find columns that could hold a wrong time, in the models and in the live catalog."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, Connection, MetaData, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from backend.utc.column import UtcDateTime

_ADVICE = {
    "timestamp": "sessions read it in their own zone: make it timestamptz, USING column AT TIME ZONE its zone",
    "timetz": "an offset without a date is not a time anywhere: store a timestamptz, or a time and the zone's name",
    "tsrange": "sessions read its bounds in their own zone: make it tstzrange",
    "tsmultirange": "sessions read its bounds in their own zone: make it tstzmultirange",
    "precision": "PostgreSQL rounds to it, even into the next year: leave the precision out",
    "unguarded": "it accepts naive datetimes: use UtcDateTime, or leave the type to type_annotation_map",
}


@dataclass(frozen=True)
class Finding:
    """A column that could hold a wrong time."""

    table: str
    column: str
    type: str
    advice: str
    """What to do, and why."""

    def __str__(self) -> str:
        return f"{self.table}.{self.column} is {self.type}: {self.advice}"


def lint_metadata(metadata: MetaData) -> list[Finding]:
    """Find the same faults in the models as `lint_catalog` in a database, and timestamps without UtcDateTime."""
    return [
        Finding(table.fullname, column.name, written, _ADVICE[fault])
        for table in metadata.sorted_tables
        for column in table.c
        for fault, written in _faults(column.type)
    ]


def _faults(type_: TypeEngine[Any]) -> Iterator[tuple[str, str]]:
    if isinstance(type_, UtcDateTime):
        return
    if isinstance(type_, ARRAY):
        yield from _faults(type_.item_type)
        return
    if isinstance(type_, postgresql.DOMAIN):
        yield from _faults(type_.data_type)
        return
    written = type_.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's gap
    for pattern, fault in _WRITTEN.items():
        if re.fullmatch(pattern, written, re.IGNORECASE):
            yield fault, written.lower()
            return


# The types as SQLAlchemy compiles them; a TypeDecorator compiles to the type that it decorates.
_WRITTEN = {
    r"TIMESTAMP(\(\d\))? WITHOUT TIME ZONE": "timestamp",
    r"TIME(\(\d\))? WITH TIME ZONE": "timetz",
    r"TSRANGE": "tsrange",
    r"TSMULTIRANGE": "tsmultirange",
    r"TIMESTAMP\(\d\) WITH TIME ZONE": "precision",
    r"TIMESTAMP WITH TIME ZONE": "unguarded",
}


def lint_catalog(
    connection: Connection, schema: str | None = None, *, tables: Collection[str] | None = None
) -> list[Finding]:
    """Find the columns of tables and views that could hold a wrong time.

    Their type is timestamp (without time zone), timetz, tsrange, tsmultirange, or timestamptz with a precision, also
    inside domains, arrays, ranges and composite types. `schema` limits the search to one schema (the default is all
    but PostgreSQL's own), and `tables` to tables with these names. Tables of extensions are left out.
    """
    parameters = {"schema": schema, "tables": None if tables is None else sorted(tables)}
    return [
        Finding(row.table, row.column, row.type, _ADVICE[row.fault])
        for row in connection.execute(_CATALOG, parameters)
    ]


# The query descends into each column's type: the base of a domain, the element of an array, the subtype of a range, the
# columns of a composite. An array or a domain passes on its type modifier, which has the precision of a timestamptz.
_CATALOG = text("""
WITH RECURSIVE parts AS (
    SELECT c.oid AS relation, a.attnum, a.atttypid AS type, a.atttypmod AS modifier
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND a.attnum > 0
      AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
      AND n.nspname = coalesce(CAST(:schema AS text), n.nspname)
      AND (CAST(:tables AS text[]) IS NULL OR c.relname = ANY (CAST(:tables AS text[])))
      AND NOT EXISTS (SELECT FROM pg_depend AS d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    UNION
    SELECT parts.relation, parts.attnum, inner_type.type, inner_type.modifier
    FROM parts
    JOIN pg_type AS t ON t.oid = parts.type
    CROSS JOIN LATERAL (
        SELECT t.typbasetype AS type, t.typtypmod AS modifier WHERE t.typtype = 'd'
        UNION ALL
        SELECT t.typelem, parts.modifier WHERE t.typcategory = 'A' AND t.typelem <> 0
        UNION ALL
        SELECT r.rngsubtype, -1 FROM pg_range AS r
        WHERE r.rngtypid = t.oid AND t.oid >= 16384
        UNION ALL
        SELECT r.rngtypid, -1 FROM pg_range AS r WHERE r.rngmultitypid = t.oid AND t.oid >= 16384
        UNION ALL
        SELECT a.atttypid, a.atttypmod FROM pg_attribute AS a
        WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0
    ) AS inner_type
)
SELECT DISTINCT relation::regclass::text AS table, a.attname AS column, a.attnum,
       format_type(a.atttypid, a.atttypmod) AS type,
       CASE parts.type WHEN 'timestamp'::regtype THEN 'timestamp' WHEN 'timetz'::regtype THEN 'timetz'
                       WHEN 'tsrange'::regtype THEN 'tsrange' WHEN 'tsmultirange'::regtype THEN 'tsmultirange'
                       ELSE 'precision' END AS fault
FROM parts JOIN pg_attribute AS a ON a.attrelid = relation AND a.attnum = parts.attnum
WHERE parts.type IN ('timestamp'::regtype, 'timetz'::regtype, 'tsrange'::regtype, 'tsmultirange'::regtype)
   OR parts.type = 'timestamptz'::regtype AND parts.modifier <> -1
ORDER BY 1, 3
""")
