"""The PL/pgSQL functions that reset a database, composed for the tables and sequences that it has."""

from collections.abc import Iterable
from typing import Any, LiteralString

from psycopg import Connection, sql

_VACUUM_BYTES = 16 * 8192
"""A table that has grown past this is vacuumed, or every later scan would pay for its dead rows."""

# A row of these that is new or gone is a change of the schema. The conditions leave out PostgreSQL's own rows.
_CATALOGS: dict[LiteralString, LiteralString] = {
    # New relations have a new row in pg_class, and a new default changes its column's row.
    "pg_attribute": "attrelid = any ({with_columns}::oid[]) and attnum > 0",
    "pg_class": "oid >= 16384",
    "pg_constraint": "oid >= 16384",
    "pg_trigger": "oid >= 16384",
    "pg_type": "oid >= 16384",
    "pg_proc": "oid >= 16384 and proname not in ('freshpg_catalogs', 'freshpg_rows', 'freshpg_reset')",
    "pg_rewrite": "oid >= 16384",
    "pg_description": "objoid >= 16384",
    "pg_namespace": "nspname !~ '^pg_(toast_)?temp_'",
    "pg_sequence": "true",
    "pg_enum": "true",
    "pg_policy": "true",
    "pg_extension": "true",
    "pg_event_trigger": "true",
    "pg_publication": "true",
    "pg_default_acl": "true",
    "pg_statistic_ext": "true",
    "pg_largeobject_metadata": "true",
    "pg_db_role_setting": "setdatabase = {database}",
}

_RELATIONS = """
    select c.oid, c.relkind::text as kind, c.relpersistence = 'u' as is_unlogged, n.nspname, c.relname,
           exists (select from pg_depend d
                    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') as is_of_extension
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where (c.relkind in ('r', 'S') or c.relkind = 'm' and c.relispopulated) and c.relpersistence <> 't'
       and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
     order by c.oid
"""

_WITH_COLUMNS: LiteralString = (
    "select array(select oid from pg_class where oid >= 16384 and relkind in ('r', 'p', 'v', 'm', 'f', 'c'))"
)

# The functions behind pg_stat_activity and pg_prepared_xacts, which join other tables to them.
OTHERS: LiteralString = """
    from pg_stat_get_activity(null)
   where datid = {database} and pid <> pg_backend_pid()
     and backend_type = 'client backend' and (state like 'idle in transaction%' or backend_xid is not null or {or_if})
"""

# How many rows there are and how new the newest is, compared with the transaction `known`: a row that is added or
# changed is newer, and one that is removed alone is missing.
_STATE: LiteralString = "return (select (count(*), min(age(xmin)) - age(known))::text from ({rows}) as rows)"

_FUNCTIONS: LiteralString = """
create or replace function pg_temp.freshpg_catalogs(known xid) returns text language plpgsql as $freshpg$
begin {catalogs}; end $freshpg$;

create or replace function pg_temp.freshpg_rows(known xid) returns text language plpgsql as $freshpg$
begin {rows}; end $freshpg$;

create or replace function pg_temp.freshpg_reset(
    known xid, catalogs text, rows text, inout seen bigint, out outcome text, out to_vacuum text[], out databases text[]
) language plpgsql as $freshpg$
declare
    next bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    touched oid[];
begin
    outcome := 'clean';
    if exists (select {others}) or exists (select from pg_prepared_xact() where dbid = {database}) then
        outcome := 'open';
        return;
    elsif next = seen and not {has_unlogged_sequence} then
        return;
    end if;
    databases := array(select datname::text from pg_database where oid >= 16384);
    if pg_temp.freshpg_catalogs(known) <> catalogs or pg_temp.freshpg_rows(known) <> rows then
        outcome := 'changed';
        return;
    end if;
    touched := {touched};
    {empty}
    to_vacuum := array(
        select oid::regclass::text from unnest(touched) as oid where pg_relation_size(oid) > {vacuum_bytes}
    );
    perform setval(oid::regclass, value, is_called)
       from unnest({sequences}::oid[], {values}::bigint[], {called}::bool[]) as template (oid, value, is_called)
      where pg_sequence_last_value(oid) is distinct from case when is_called then value end;
    seen := greatest(next, pg_current_xact_id_if_assigned()::text::bigint + 1);
end $freshpg$
"""
# An ordinary role can switch off neither triggers nor foreign keys. What refers to these tables is emptied, too.
_TRUNCATE = sql.SQL("""
    if touched <> '{}' and exists (select from pg_trigger where tgtype & 32 <> 0) then
        outcome := 'changed'; -- a trigger of TRUNCATE might write
        return;
    elsif touched <> '{}' then
        execute 'truncate ' || array_to_string(touched::regclass[], ', ') || ' cascade';
        outcome := case when pg_temp.freshpg_rows(known) <> rows then 'changed' else 'truncated' end;
    end if;
""")


def compose(connection: Connection[Any], database: int, *, may_delete: bool) -> sql.Composed:
    """Compose the functions for the tables and sequences that the database, given by its OID, has now."""
    relations = connection.execute(_RELATIONS).fetchall()
    names = {oid: sql.Identifier(schema, name) for oid, _, _, schema, name, _ in relations}
    stored = _array(_if_filled(oid, names[oid]) for oid, kind, *_ in relations if kind != "S")
    [(filled,)] = connection.execute(sql.SQL("select {}").format(stored)).fetchall()
    # What comes with an extension may be large (PostGIS), and is left alone.
    left_alone = {oid for oid, kind, *_, is_of_extension in relations if kind == "r" and is_of_extension}
    watched = [sql.SQL("only {}").format(names[oid]) for oid in filled if oid not in left_alone]
    tables = {oid: names[oid] for oid, kind, *_ in relations if kind == "r" and oid not in filled}
    oids, values, called = _settle(
        connection, {oid: names[oid] for oid, kind, *_ in relations if kind == "S"}
    )
    [(columns,)] = connection.execute(_WITH_COLUMNS).fetchall()
    return sql.SQL(_FUNCTIONS).format(
        catalogs=_state(
            sql.SQL("{} where {}").format(
                sql.SQL(each), sql.SQL(where).format(with_columns=columns, database=database)
            )
            for each, where in _CATALOGS.items()
        ),
        rows=_state(watched) if watched else sql.SQL("return ''"),
        others=sql.SQL(OTHERS).format(database=database, or_if=sql.SQL("false")),
        database=database,
        # Row security may hide rows from an ordinary role. What it truncates has no size.
        touched=_array((_if_filled if may_delete else _if_sized)(*table) for table in tables.items()),
        empty=_deletes(tables) if may_delete else _TRUNCATE,
        sequences=oids,
        values=values,
        called=called,
        # A value of an unlogged sequence may be taken without a transaction number.
        has_unlogged_sequence=any(kind == "S" and is_unlogged for _, kind, is_unlogged, *_ in relations),
        vacuum_bytes=_VACUUM_BYTES,
    )


def _settle(
    connection: Connection[Any], sequences: dict[int, sql.Identifier]
) -> tuple[list[int], list[int], list[bool]]:
    """Return the sequences, their values, and whether nextval returned those."""
    if not sequences:
        return [], [], []
    values = sql.SQL(" union all ").join(
        sql.SQL("select {}, last_value, is_called from {}").format(oid, name)
        for oid, name in sequences.items()
    )
    oids, last_values, called = map(list, zip(*connection.execute(values).fetchall(), strict=True))
    # A sequence logs 32 values ahead, and nextval within them takes no transaction number. setval discards them, so the
    # next nextval takes one, and the reset sees it.
    settle = "select count(setval(oid, value, is_called)) from unnest(%s::oid[], %s::bigint[], %s::bool[])"
    connection.execute(settle + " as template (oid, value, is_called)", [oids, last_values, called])
    return oids, last_values, called


def _state(tables: Iterable[sql.Composed]) -> sql.Composed:
    selects = (sql.SQL("select xmin from {}").format(each) for each in tables)
    return sql.SQL(_STATE).format(rows=sql.SQL(" union all ").join(selects))


def _array(items: Iterable[sql.Composed]) -> sql.Composed:
    return sql.SQL("array_remove(array[{}]::oid[], null)").format(sql.SQL(", ").join(items))


def _if_filled(oid: int, table: sql.Identifier) -> sql.Composed:
    return sql.SQL("case when exists (select from only {}) then {} end").format(table, oid)


def _if_sized(oid: int, _: sql.Identifier) -> sql.Composed:
    return sql.SQL("case when pg_relation_size({oid}) <> 0 then {oid} end").format(oid=oid)


def _deletes(tables: dict[int, sql.Identifier]) -> sql.Composed:
    """Compose one statement per table, because PL/pgSQL keeps their plans."""
    delete = sql.SQL("if {} = any (touched) then delete from only {}; end if;")
    return sql.SQL("\n    ").join(delete.format(oid, table) for oid, table in tables.items())
