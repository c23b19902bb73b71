"""A schema as PostgreSQL itself tells it: each thing in it, and what can be said of the thing, as text.

Two schemas on one server are compared by comparing what is told of them. That sees what a comparison with
SQLAlchemy's metadata cannot: CHECKs, triggers, functions, predicates, storage, a constraint that was never validated,
an index that failed half-way. Whatever names a schema is told without it, so that a copy elsewhere reads the same.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, MetaData, text

VERSION_TABLE = "alembic_version"


class Thing(NamedTuple):
    """What a schema holds: a table, or a column, index, trigger of one, or what belongs to no table."""

    table: str
    """The table, or the empty string for what belongs to none."""
    kind: str
    name: str


Facts = dict[str, str]
"""What is told of a thing, by what it is about: `type`, `default`, `definition`."""

Catalog = dict[Thing, Facts]


def read(connection: Connection, schema: str | None = None) -> Catalog:
    """Read a schema, by default the one in which tables are made; its name must come first in the search path.

    Left out are Alembic's own table and whatever belongs to an extension.
    """
    names = {"schema": schema or default_schema(connection), "version_table": VERSION_TABLE}
    return {
        Thing(row.owner, row.kind, row.name): {name: value for name, value in row.facts.items() if value}
        for row in connection.execute(_CATALOG, names)
    }


def default_schema(connection: Connection) -> str:
    """Return the schema in which tables are made: the first of the search path that is there."""
    schema: str = connection.execute(text("SELECT coalesce(current_schema(), 'public')")).scalar_one()
    return schema


def other_schemas(connection: Connection) -> list[str]:
    """List the schemas that this role may drop, beside the one in which tables are made."""
    return list(connection.scalars(_OTHER_SCHEMAS))


def expected(connection: Connection, metadata: MetaData) -> Catalog:
    """Tell what these models would be on this very server; the connection's transaction is left as it was.

    They are made in a schema that nobody else ever sees, for it is rolled back. The role must be allowed to make one,
    as a database's owner is: else it is a DBAPIError.
    """
    with _scratch_schema(connection) as schema:
        # Looking first would find the tables of the same names further down the path, and make none.
        metadata.create_all(connection, checkfirst=False)
        return read(connection, schema)


@contextmanager
def _scratch_schema(connection: Connection) -> Iterator[str]:
    # One of its own for each comparison, or two at a time would wait for each other.
    name = f"models_{secrets.token_hex(6)}"
    savepoint = connection.begin_nested()
    try:
        connection.execute(text(f"CREATE SCHEMA {name}"))
        # What was on the path stays there, for a column's type may be an extension's.
        before = connection.scalar(text("SHOW search_path"))
        path = ", ".join(filter(None, (name, before)))
        connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": path})
        yield name
    finally:
        savepoint.rollback()


_OTHER_SCHEMAS = text("""
SELECT nspname FROM pg_namespace AS n
WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public')
  AND nspname <> coalesce(current_schema(), 'public')
  AND pg_has_role(nspowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM pg_depend AS d
                  WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
ORDER BY 1
""")

# NOT NULL has a constraint of its own from PostgreSQL 18 on, with a name that nobody chose: it is told of the column.
_CATALOG = text("""
WITH space AS (
    SELECT oid, quote_ident(nspname) || '.' AS prefix FROM pg_namespace WHERE nspname = :schema
), extensions AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relations AS (
    SELECT c.* FROM pg_class AS c
    WHERE relnamespace = (SELECT oid FROM space) AND relname <> :version_table
      AND (c.oid, 'pg_class'::regclass) NOT IN (SELECT objid, classid FROM extensions)
), tables AS (
    SELECT oid, relname FROM relations WHERE relkind IN ('r', 'p', 'f', 'v', 'm')
)
SELECT CASE WHEN relkind IN ('r', 'p', 'f') THEN relname ELSE '' END AS owner,
       CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                    WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' ELSE 'table' END AS kind,
       relname AS name,
       jsonb_build_object(
           'definition', CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid, true) END,
           'storage parameters', array_to_string(reloptions, ', '),
           'logging', CASE relpersistence WHEN 'u' THEN 'UNLOGGED' END,
           'partitioning', CASE relkind WHEN 'p' THEN pg_get_partkeydef(oid) END,
           'row security', CASE WHEN relrowsecurity THEN 'enabled' END,
           'columns', CASE relkind WHEN 'c' THEN (
               SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
               FROM pg_attribute WHERE attrelid = relations.oid AND attnum > 0 AND NOT attisdropped) END,
           'comment', obj_description(oid, 'pg_class')) AS facts
FROM relations
WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'c')
   OR relkind = 'S' AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass
                                    AND d.objid = relations.oid AND d.deptype IN ('a', 'i'))
UNION ALL
SELECT relname, 'column', attname,
       jsonb_build_object(
           'type', format_type(atttypid, atttypmod),
           'nullability', CASE WHEN NOT attnotnull THEN 'NULL'
                               WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'n'
                                            AND conkey = ARRAY[attnum] AND NOT convalidated)
                               THEN 'NOT NULL NOT VALID' ELSE 'NOT NULL' END,
           'default', CASE WHEN attgenerated = '' THEN pg_get_expr(adbin, adrelid) END,
           'generated', CASE WHEN attgenerated <> '' THEN
                        concat_ws(' ', pg_get_expr(adbin, adrelid), CASE attgenerated WHEN 's' THEN 'STORED' END) END,
           'identity', CASE attidentity WHEN '' THEN NULL ELSE (
               SELECT concat_ws(' ', CASE attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END,
                                'start', seqstart, 'increment', seqincrement, 'min', seqmin, 'max', seqmax,
                                CASE WHEN seqcycle THEN 'cycle' END)
               FROM pg_depend AS d JOIN pg_sequence ON seqrelid = d.objid
               WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = attrelid AND d.refobjsubid = attnum
                 AND d.deptype = 'i') END,
           'collation', (SELECT collname FROM pg_collation JOIN pg_type AS t ON t.oid = atttypid
                         WHERE pg_collation.oid = attcollation AND attcollation <> typcollation),
           'comment', col_description(attrelid, attnum))
FROM pg_attribute
JOIN relations ON relations.oid = attrelid AND relkind IN ('r', 'p', 'f')
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT relname, CASE contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique constraint'
                             WHEN 'f' THEN 'foreign key' WHEN 'x' THEN 'exclusion constraint' ELSE 'CHECK' END,
       conname,
       jsonb_build_object('definition', pg_get_constraintdef(c.oid, true),
                          'comment', obj_description(c.oid, 'pg_constraint'))
FROM pg_constraint AS c JOIN tables ON tables.oid = conrelid
WHERE contype IN ('p', 'u', 'f', 'x', 'c')
UNION ALL
SELECT tables.relname, 'index', i.relname,
       jsonb_build_object('definition', pg_get_indexdef(indexrelid, 0, true),
                          'validity', CASE WHEN NOT indisvalid THEN 'invalid: its building failed' END,
                          'comment', obj_description(indexrelid, 'pg_class'))
FROM pg_index JOIN tables ON tables.oid = indrelid JOIN pg_class AS i ON i.oid = indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
UNION ALL
SELECT relname, 'trigger', tgname,
       jsonb_build_object('definition', pg_get_triggerdef(t.oid, true),
                          'state', CASE tgenabled WHEN 'O' THEN NULL WHEN 'D' THEN 'disabled'
                                                  WHEN 'R' THEN 'on replicas alone' ELSE 'always' END)
FROM pg_trigger AS t JOIN tables ON tables.oid = tgrelid WHERE NOT tgisinternal
UNION ALL
SELECT relname, 'rule', rulename, jsonb_build_object('definition', pg_get_ruledef(r.oid, true))
FROM pg_rewrite AS r JOIN tables ON tables.oid = ev_class WHERE rulename <> '_RETURN'
UNION ALL
SELECT relname, 'policy', polname,
       jsonb_build_object('definition', concat_ws(' ', CASE WHEN NOT polpermissive THEN 'RESTRICTIVE' END,
                                                  'FOR', polcmd, 'USING', pg_get_expr(polqual, polrelid),
                                                  'WITH CHECK', pg_get_expr(polwithcheck, polrelid)))
FROM pg_policy JOIN tables ON tables.oid = polrelid
UNION ALL
SELECT relname, 'statistics', stxname,
       jsonb_build_object('definition', replace(pg_get_statisticsobjdef(s.oid), (SELECT prefix FROM space), ''))
FROM pg_statistic_ext AS s JOIN tables ON tables.oid = stxrelid
UNION ALL
SELECT '', CASE prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
       format('%I(%s)', proname, pg_get_function_identity_arguments(p.oid)),
       jsonb_build_object('definition', CASE WHEN prokind <> 'a' THEN
           overlay(pg_get_functiondef(p.oid) PLACING '' FROM position(prefix IN pg_get_functiondef(p.oid))
                   FOR length(prefix)) END)
FROM pg_proc AS p JOIN space ON space.oid = pronamespace
WHERE NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                  AND d.deptype IN ('e', 'i', 'a'))
UNION ALL
SELECT '', CASE typtype WHEN 'd' THEN 'domain' ELSE 'type' END, typname,
       jsonb_build_object(
           'values', (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
                      FROM pg_enum WHERE enumtypid = t.oid),
           'definition', CASE typtype WHEN 'd' THEN concat_ws(' ', format_type(typbasetype, typtypmod),
               CASE WHEN typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || typdefault,
               (SELECT string_agg(pg_get_constraintdef(c.oid, true), ' ' ORDER BY conname)
                FROM pg_constraint AS c WHERE contypid = t.oid AND contype = 'c')) END,
           'bounds', (SELECT format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = t.oid))
FROM pg_type AS t JOIN space ON space.oid = typnamespace
WHERE typtype IN ('e', 'd', 'r')
  AND (t.oid, 'pg_type'::regclass) NOT IN (SELECT objid, classid FROM extensions)
""")
