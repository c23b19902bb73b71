"""The contents of a database according to PostgreSQL's catalog: each object, and its facts as SQL.

Comparing two catalogs finds what a comparison with SQLAlchemy's metadata cannot: CHECKs, triggers, functions, views,
predicates, defaults, storage, a constraint that was never validated. Names are quoted as SQL needs them, and include
their schema unless it is the default one, so that a copy of the default schema gives the same catalog.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, MetaData, event, text
from sqlalchemy.exc import CompileError, SQLAlchemyError

VERSION_TABLE = "alembic_version"

_VARCHAR = re.compile("'(?:[^']|'')*'::character varying")
_VARCHARS = re.compile(rf"\(ARRAY\[((?:{_VARCHAR.pattern}(?:, )?)+)\]\)::text\[\]")
_CONCURRENTLY = re.compile(r"^(\s*CREATE (?:UNIQUE )?INDEX) CONCURRENTLY")
_IN_SCHEMA = re.compile(r'\s*CREATE (?:UNLOGGED )?(?:TABLE|TYPE|DOMAIN|SEQUENCE) ("(?:[^"]|"")+"|\w+)\.')


class Thing(NamedTuple):
    """A table, a part of one (a column, an index, a trigger), or what belongs to no table."""

    table: str
    """The table, or the empty string."""
    kind: str
    name: str


Facts = dict[str, str]
"""The facts about a thing by their names, such as `type`, `default` or `definition`."""

Catalog = dict[Thing, Facts]


def read(connection: Connection, home: str | None = None) -> Catalog:
    """Read the default schema (or `home`, which must come first in the search path) and our other schemas.

    It leaves out Alembic's own table, grants, and the objects of extensions.
    """
    names = {"home": home or default_schema(connection), "others": other_schemas(connection)}
    return {
        Thing(row.owner, row.kind, row.name): {
            name: _VARCHARS.sub(_cast_each, value) for name, value in row.facts.items() if value
        }
        for row in connection.execute(_CATALOG, names | {"version_table": VERSION_TABLE})
    }


def _cast_each(array: re.Match[str]) -> str:
    """Cast each varchar of a list on its own, as PostgreSQL does when it reads its own definition back."""
    return "ARRAY[" + ", ".join(f"({value})::text" for value in _VARCHAR.findall(array[1])) + "]"


def default_schema(connection: Connection) -> str:
    """Return the schema in which tables are created: the first existing schema in the search path."""
    schema: str = connection.execute(text("SELECT coalesce(current_schema(), 'public')")).scalar_one()
    return schema


def other_schemas(connection: Connection) -> list[str]:
    """List the schemas other than the default one that this role owns and that hold no extension's objects."""
    return list(connection.scalars(_OTHER_SCHEMAS))


def expected(connection: Connection, metadata: MetaData) -> Catalog:
    """Return the catalog that these models would have on this server, and leave nothing behind.

    The models are created in a savepoint that is rolled back, in a temporary schema that replaces the default one; our
    other schemas are renamed out of the way meanwhile. Raises DBAPIError if the role may not create a schema or
    PostgreSQL refuses the models, and another SQLAlchemyError if SQLAlchemy cannot compile them.
    """
    home = default_schema(connection)
    savepoint = connection.begin_nested()
    options = connection.get_execution_options()
    try:
        with _stand_in(connection) as stand_in:
            connection.execution_options(schema_translate_map={home: stand_in})
            # With checkfirst, SQLAlchemy would find tables of the same names on the search path and skip these.
            metadata.create_all(connection, checkfirst=False)
            return read(connection, stand_in)
    except SQLAlchemyError:
        raise
    except Exception as error:  # a column type's own methods may raise anything while it is compiled
        raise CompileError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.execution_options(schema_translate_map=options.get("schema_translate_map"))
        savepoint.rollback()


@contextmanager
def _stand_in(connection: Connection) -> Iterator[str]:
    # The name is random, or two comparisons at a time would wait for each other. `other_schemas` ignores the prefix.
    quote = connection.dialect.identifier_preparer.quote_identifier
    name = f"models_{secrets.token_hex(6)}"
    for number, other in enumerate(other_schemas(connection)):
        connection.exec_driver_sql(f"ALTER SCHEMA {quote(other)} RENAME TO {name}_{number}")
    connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    # The search path keeps its other schemas, because a column's type may come from an extension.
    path = ", ".join(filter(None, (name, connection.scalar(text("SHOW search_path")))))
    connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": path})
    event.listen(connection, "before_cursor_execute", _adapt_statement, retval=True)
    try:
        yield name
    finally:
        event.remove(connection, "before_cursor_execute", _adapt_statement)


def _adapt_statement(
    connection: Connection, _cursor: object, statement: str, parameters: object, *_: object
) -> tuple[str, object]:
    """Create the schema that a type or a sequence needs, and build indexes in the transaction."""
    if (found := _IN_SCHEMA.match(statement)) and found[1] != "pg_temp":
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {found[1].replace('%', '%%')}")
    return _CONCURRENTLY.sub(r"\1", statement), parameters


_OTHER_SCHEMAS = text(r"""
SELECT nspname FROM pg_namespace AS n
WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'public')
  AND nspname <> coalesce(current_schema(), 'public') AND nspname !~ '^models_[0-9a-f]{12}'
  AND pg_has_role(nspowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid
                  AND d.deptype = 'e')
  AND NOT EXISTS (SELECT FROM pg_extension WHERE extnamespace = n.oid)
ORDER BY 1
""")

# Definitions are not pretty-printed: pretty-printing leaves out parentheses that decide what is cast, so the text would
# differ after a round trip. From PostgreSQL 18 on, NOT NULL is a constraint with a generated name; here it is a fact of
# the column.
_CATALOG = text("""
WITH spaces AS (
    SELECT oid AS space, CASE WHEN nspname = :home THEN '' ELSE quote_ident(nspname) || '.' END AS prefix,
           quote_ident(nspname) AS label
    FROM pg_namespace WHERE nspname = :home OR nspname = ANY (:others)
), extensions AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relations AS (
    SELECT c.*, prefix, label, prefix || quote_ident(relname) AS called
    FROM pg_class AS c JOIN spaces ON space = relnamespace
    WHERE relname <> :version_table AND (c.oid, 'pg_class'::regclass) NOT IN (SELECT objid, classid FROM extensions)
), tables AS (
    SELECT * FROM relations WHERE relkind IN ('r', 'p', 'f', 'v', 'm')
), sequences AS (
    SELECT seqrelid, format('START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s %s', seqstart, seqincrement,
                            seqmin, seqmax, seqcache, CASE WHEN seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END) AS options,
           format_type(seqtypid, NULL) AS type, refobjid, refobjsubid, deptype
    FROM pg_sequence LEFT JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = seqrelid
         AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
), things AS (
SELECT '' AS owner, 'schema' AS kind, label AS name, 0 AS place, '{}'::jsonb AS facts
FROM spaces WHERE prefix <> ''
UNION ALL
SELECT '', 'extension', quote_ident(extname), 0, '{}' FROM pg_extension WHERE extname <> 'plpgsql'
UNION ALL
SELECT CASE WHEN relkind IN ('r', 'p', 'f') THEN called ELSE '' END,
       CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                    WHEN 'c' THEN 'type' ELSE 'table' END,
       called, 0,
       jsonb_build_object(
           'definition', CASE
               WHEN relkind IN ('v', 'm') THEN rtrim(pg_get_viewdef(r.oid), ';')
               WHEN relkind = 'c' THEN (
                   SELECT format('AS (%s)', string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', '
                                                       ORDER BY attnum))
                   FROM pg_attribute WHERE attrelid = r.oid AND attnum > 0 AND NOT attisdropped) END,
           'storage parameters', array_to_string(reloptions, ', '),
           'logging', CASE relpersistence WHEN 'u' THEN 'UNLOGGED' END,
           'partition key', CASE relkind WHEN 'p' THEN pg_get_partkeydef(r.oid) END,
           'partition of', CASE WHEN relispartition THEN
               (SELECT inhparent::regclass || ' ' || pg_get_expr(relpartbound, r.oid)
                FROM pg_inherits WHERE inhrelid = r.oid) END,
           'inherits', CASE WHEN NOT relispartition AND relkind = 'r' THEN
               (SELECT string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno)
                FROM pg_inherits WHERE inhrelid = r.oid) END,
           'access method', (SELECT amname FROM pg_am WHERE pg_am.oid = relam AND amname NOT IN ('heap', 'btree')),
           'tablespace', (SELECT quote_ident(spcname) FROM pg_tablespace AS s WHERE s.oid = reltablespace),
           'row security', CASE WHEN relforcerowsecurity THEN 'FORCE' WHEN relrowsecurity THEN 'ENABLE' END,
           'comment', obj_description(r.oid, 'pg_class'))
FROM relations AS r WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'c')
UNION ALL
SELECT '', 'sequence', r.called, 0,
       jsonb_build_object(
           'definition', 'AS ' || s.type || ' ' || s.options,
           'owned by', owner.called || '.' || (SELECT quote_ident(attname) FROM pg_attribute
                                               WHERE attrelid = refobjid AND attnum = refobjsubid))
FROM relations AS r JOIN sequences AS s ON seqrelid = r.oid LEFT JOIN tables AS owner ON owner.oid = refobjid
WHERE deptype IS DISTINCT FROM 'i'
UNION ALL
SELECT called, 'column', quote_ident(attname), attnum,
       jsonb_build_object(
           'type', format_type(atttypid, atttypmod),
           'nullability', CASE WHEN NOT attnotnull THEN 'NULL'
                               WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'n'
                                            AND conkey = ARRAY[attnum] AND NOT convalidated)
                               THEN 'NOT NULL NOT VALID' ELSE 'NOT NULL' END,
           'default', CASE WHEN attgenerated = '' THEN pg_get_expr(adbin, adrelid) END,
           'generated', CASE WHEN attgenerated <> '' THEN format('ALWAYS AS (%s) %s', pg_get_expr(adbin, adrelid),
                                CASE attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END) END,
           'identity', CASE WHEN attidentity <> '' THEN (
               SELECT format('%s AS IDENTITY (%s)', CASE attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END,
                             options)
               FROM sequences WHERE refobjid = attrelid AND refobjsubid = attnum AND deptype = 'i') END,
           'collation', (SELECT attcollation::regcollation::text FROM pg_type AS t
                         WHERE t.oid = atttypid AND attcollation <> typcollation),
           'comment', col_description(attrelid, attnum))
FROM pg_attribute
JOIN relations ON relations.oid = attrelid AND relkind IN ('r', 'p', 'f') AND NOT relispartition
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped AND (attislocal OR attinhcount = 0)
UNION ALL
SELECT called, CASE contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique constraint'
                            WHEN 'f' THEN 'foreign key' WHEN 'x' THEN 'exclusion constraint' ELSE 'CHECK' END,
       quote_ident(conname), 0,
       jsonb_build_object('definition', pg_get_constraintdef(c.oid, contype = 'f'),
                          'comment', obj_description(c.oid, 'pg_constraint'))
FROM pg_constraint AS c JOIN tables ON tables.oid = conrelid
WHERE contype IN ('p', 'u', 'f', 'x', 'c') AND conparentid = 0 AND (conislocal OR coninhcount = 0)
UNION ALL
SELECT tables.called, 'index', tables.prefix || quote_ident(i.relname), 0,
       jsonb_build_object('definition', replace(replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON '),
                                                ' ON ' || label || '.', ' ON ' || tables.prefix),
                          'validity', CASE WHEN NOT indisvalid THEN 'invalid, because building it failed' END)
FROM pg_index JOIN tables ON tables.oid = indrelid JOIN pg_class AS i ON i.oid = indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
  AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = indexrelid)
UNION ALL
SELECT called, 'trigger', quote_ident(tgname), 0,
       jsonb_build_object('definition', replace(pg_get_triggerdef(t.oid), ' ON ' || label || '.', ' ON ' || prefix),
                          'state', CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA'
                                                  WHEN 'A' THEN 'ENABLE ALWAYS' END)
FROM pg_trigger AS t JOIN tables ON tables.oid = tgrelid WHERE NOT tgisinternal AND tgparentid = 0
UNION ALL
SELECT called, 'rule', quote_ident(rulename), 0,
       jsonb_build_object('definition', rtrim(pg_get_ruledef(r.oid, true), ';'))
FROM pg_rewrite AS r JOIN tables ON tables.oid = ev_class WHERE rulename <> '_RETURN'
UNION ALL
SELECT called, 'policy', quote_ident(polname), 0,
       jsonb_build_object('definition', concat_ws(' ',
           format('CREATE POLICY %I ON %s AS', polname, called),
           CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
           'FOR', CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                              WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
           'TO', (SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE role::regrole::text END, ', ' ORDER BY role)
                  FROM unnest(polroles) AS role),
           'USING (' || pg_get_expr(polqual, polrelid) || ')',
           'WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')'))
FROM pg_policy AS p JOIN tables ON tables.oid = polrelid
UNION ALL
SELECT called, 'statistics', spaces.prefix || quote_ident(stxname), 0,
       jsonb_build_object('definition', replace(pg_get_statisticsobjdef(s.oid), 'STATISTICS ' || spaces.label || '.',
                                                'STATISTICS ' || spaces.prefix))
FROM pg_statistic_ext AS s JOIN tables ON tables.oid = stxrelid JOIN spaces ON space = stxnamespace
UNION ALL
SELECT '', CASE prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
       format('%s%I(%s)', prefix, proname, pg_get_function_identity_arguments(p.oid)), 0,
       jsonb_build_object('definition', CASE WHEN prokind <> 'a' THEN
           overlay(pg_get_functiondef(p.oid) PLACING prefix FROM position(label || '.' IN pg_get_functiondef(p.oid))
                   FOR length(label) + 1) END)
FROM pg_proc AS p JOIN spaces ON space = pronamespace
WHERE NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                  AND d.deptype IN ('e', 'i', 'a'))
UNION ALL
SELECT '', CASE typtype WHEN 'd' THEN 'domain' ELSE 'type' END, prefix || quote_ident(typname), 0,
       jsonb_build_object(
           'values', (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
                      FROM pg_enum WHERE enumtypid = t.oid),
           'definition', CASE typtype
               WHEN 'r' THEN (SELECT format('AS RANGE (SUBTYPE = %s)', format_type(rngsubtype, NULL))
                              FROM pg_range WHERE rngtypid = t.oid)
               WHEN 'd' THEN concat_ws(' ', 'AS', format_type(typbasetype, typtypmod),
                   'COLLATE ' || (SELECT typcollation::regcollation FROM pg_type AS base
                                  WHERE base.oid = t.typbasetype AND base.typcollation <> t.typcollation),
                   'DEFAULT ' || typdefault, CASE WHEN typnotnull THEN 'NOT NULL' END,
                   (SELECT string_agg(format('CONSTRAINT %I %s', conname, pg_get_constraintdef(c.oid)), ' '
                                      ORDER BY conname)
                    FROM pg_constraint AS c WHERE contypid = t.oid AND contype = 'c')) END)
FROM pg_type AS t JOIN spaces ON space = typnamespace
WHERE typtype IN ('e', 'd', 'r')
  AND (t.oid, 'pg_type'::regclass) NOT IN (SELECT objid, classid FROM extensions)
)
SELECT owner, kind, name, facts FROM things ORDER BY owner, kind, place, name
""")
