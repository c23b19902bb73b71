"""Takes a worker's database back to its template after a test: one round trip that costs what was touched.

A PL/pgSQL function in `pg_temp` of our own connection does the work. It is generated for the schema of the template,
so that its statements are static and their plans are kept. It looks for transactions that were left open and, if any
transaction wrote since the last reset, for changes of the schema; then it empties tables and puts sequences back.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from .server import CONNECT_SECONDS

LOCK_SECONDS = 1
GRACE_SECONDS = 0.25
"""How long an open transaction may take to end by itself: a connection that was just closed takes a moment to go."""
_VACUUM_BYTES = 16 * 8192
"""A table that has grown past this is vacuumed, or every later scan would pay for its dead rows."""
_ATTEMPTS = 5
_GROUP = 20
"""So many tables or sequences are passed over at once: PL/pgSQL takes microseconds for each statement."""
_ALL = sql.SQL("true")

# A row of these that is new or gone is a change of the schema. The conditions leave out PostgreSQL's own rows.
_CATALOGS: dict[LiteralString, LiteralString] = {
    "pg_attribute": "attrelid >= 16384 and attnum > 0",
    "pg_class": "oid >= 16384",
    "pg_constraint": "oid >= 16384",
    "pg_trigger": "oid >= 16384",
    "pg_type": "oid >= 16384",
    "pg_proc": "oid >= 16384 and proname not in ('freshpg_changed', 'freshpg_reset')",
    "pg_rewrite": "oid >= 16384",
    "pg_attrdef": "oid >= 16384",
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
    "pg_db_role_setting": "setdatabase = (select oid from pg_database where datname = current_database())",
}

_RELATIONS = """
    select c.oid, c.relkind::text, c.relpersistence = 'u', n.nspname, c.relname,
           exists (select from pg_depend d
                    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where (c.relkind in ('r', 'S') or c.relkind = 'm' and c.relispopulated) and c.relpersistence <> 't'
       and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
     order by c.oid
"""

# The function behind pg_stat_activity, which joins two tables to it.
_OTHERS: LiteralString = """
    from pg_stat_get_activity(null)
   where datid = (select oid from pg_database where datname = current_database()) and pid <> pg_backend_pid()
     and (state like 'idle in transaction%' or backend_xid is not null or {or_if})
"""

# `known`: rows of this or a later transaction are not the template's. `seen`: the next one after the last reset.
_FUNCTIONS: LiteralString = """
create or replace function pg_temp.freshpg_changed(recent int) returns bool language plpgsql
    set enable_seqscan to off as $freshpg$
begin
    return {changed};
end $freshpg$;

create or replace function pg_temp.freshpg_reset(
    known xid, inout seen bigint, out outcome text, out grown text[], out databases text[]
) language plpgsql as $freshpg$
declare
    recent int := age(known);
    next bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    dirty bool[];
    moved bool[];
    touched oid[] := '{{}}';
begin
    outcome := 'clean';
    if exists (select {others}) or exists (select from pg_prepared_xacts where database = current_database()) then
        outcome := 'open';
        return;
    end if;
    if next = seen then
        return;
    end if;
    databases := array(select datname::text from pg_database where oid >= 16384);
    if pg_temp.freshpg_changed(recent){filled} then
        outcome := 'changed';
        return;
    end if;
    dirty := array[{dirty}]::bool[];
    {empty}
    {truncate}
    moved := array[{moved}]::bool[];
    {restore}
    seen := greatest(next, pg_current_xact_id_if_assigned()::text::bigint + 1);
end $freshpg$
"""

# An ordinary role can switch off neither triggers nor foreign keys.
_TRUNCATE: LiteralString = """
    if touched <> '{{}}' then
        execute (select 'truncate ' || string_agg(oid::regclass::text, ', ') || ' cascade' from unnest(touched) as oid);
        outcome := case when false{filled} then 'changed' else 'truncated' end;
    end if;
"""


@dataclass
class Outcome:
    """What a reset found."""

    is_spoilt: bool = False
    """Only a fresh copy of the template will do: the schema changed, or rows that the template has."""
    left_open: list[str] = field(default_factory=list)
    """The transactions that the test had left open, in words; they were ended."""
    databases: frozenset[str] = frozenset()
    """The databases of the server, but for PostgreSQL's own; none if nothing was written."""


class Reset:
    """Resets one database, which has to be as the template is when this is made."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(
            url, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="freshpg"
        )
        execute = self._connection.execute
        execute(sql.SQL("set lock_timeout to '{}s'").format(LOCK_SECONDS))
        execute(
            "set statement_timeout to 0; set idle_session_timeout to 0; set plan_cache_mode to force_generic_plan"
        )
        self._may_delete = True
        try:
            execute("set session_replication_role to replica")
        except psycopg.errors.InsufficientPrivilege:
            self._may_delete = False
        self._seen: int | None = 0
        execute(self._functions())
        self._remember()

    def __call__(self) -> Outcome:
        """Take the database back, ending what was left open on it. Raises psycopg.Error if the server is gone."""
        outcome = Outcome()
        statement = "select * from pg_temp.freshpg_reset(%s::text::xid, %s)"
        try:
            for _ in range(_ATTEMPTS):
                try:
                    row = self._one(statement, self._known, self._seen, prepare=True)
                except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                    outcome.left_open += self._end_open(with_active=True)
                    continue
                seen, result, grown, databases = row
                if result != "open":
                    self._finish(seen, result, grown)
                    outcome.databases, outcome.is_spoilt = frozenset(databases or ()), result == "changed"
                    return outcome
                outcome.left_open += self._end_open()
        except psycopg.OperationalError:
            # A test ended all connections to its database, ours too; if the server is gone, the copy will say so.
            if not self._connection.closed:
                raise
        outcome.is_spoilt = True
        return outcome

    def close(self) -> None:
        self._connection.close()

    def _one(self, statement: LiteralString | sql.Composed, *values: object, prepare: bool = False) -> Any:  # noqa: ANN401 (a row of any types)
        return self._connection.execute(statement, values, prepare=prepare).fetchone()

    def _finish(self, seen: int, result: str, grown: list[str] | None) -> None:
        if self._seen is not None:
            self._seen = seen
        if result == "truncated":
            # That writes to the catalog, and is no change of the schema.
            self._remember()
        for name in grown or ():
            with suppress(psycopg.errors.LockNotAvailable):
                self._connection.execute(sql.SQL("vacuum {}").format(sql.SQL(name)))

    def _remember(self) -> None:
        self._known = self._one("select pg_snapshot_xmax(pg_current_snapshot())::xid::text")[0]

    def _end_open(self, *, with_active: bool = False) -> list[str]:
        """Wait a moment for open transactions to end, then end them; return which they were."""
        others = sql.SQL(_OTHERS).format(or_if=sql.SQL("state = 'active'" if with_active else "false"))
        query = sql.SQL("select pid, state, left(query, 200) {}").format(others)
        deadline = time.monotonic() + (0 if with_active else GRACE_SECONDS)
        while (rows := self._connection.execute(query).fetchall()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid, _, _ in rows:
            self._connection.execute("select pg_terminate_backend(%s, 5000)", [pid])
        left = [f"pid {pid} ({state}), last statement: {' '.join(text.split())}" for pid, state, text in rows]
        prepared = "select gid from pg_prepared_xacts where database = current_database()"
        for (gid,) in self._connection.execute(prepared).fetchall():
            self._connection.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
            left.append(f"prepared transaction {gid}")
        return left

    def _functions(self) -> sql.Composed:
        """Compose the functions for the schema and the rows that the database has now."""
        relations = self._connection.execute(_RELATIONS).fetchall()
        names = {row[0]: sql.Identifier(row[3], row[4]) for row in relations}
        rows = {oid: self._count(names[oid]) for oid, kind, *_ in relations if kind != "S"}
        tables = [oid for oid, kind, *_ in relations if kind == "r" and not rows[oid]]
        # What comes with an extension may be large (PostGIS), and is left alone.
        filled = [oid for oid, kind, *_, ext in relations if kind == "m" or (rows.get(oid) and not ext)]
        differ = [sql.SQL(" or {}").format(_differs(names[oid], _ALL, rows[oid])) for oid in filled]
        catalogs = [(sql.SQL(catalog), sql.SQL(condition)) for catalog, condition in _CATALOGS.items()]
        sequences = [self._sequence(oid, names[oid]) for oid, kind, *_ in relations if kind == "S"]
        if any(is_unlogged for _, kind, is_unlogged, *_ in relations if kind == "S"):
            # A value of an unlogged sequence may be taken without a transaction number.
            self._seen = None
        return sql.SQL(_FUNCTIONS).format(
            others=sql.SQL(_OTHERS).format(or_if=sql.SQL("false")),
            changed=sql.SQL("\n       or ").join(_differs(*each, self._count(*each)) for each in catalogs),
            filled=sql.SQL("").join(differ),
            dirty=sql.SQL(", ").join(self._is_dirty(oid, names[oid]) for oid in tables),
            empty=_run_those("dirty", [self._empty(oid, names[oid]) for oid in tables]),
            truncate=sql.SQL("" if self._may_delete else _TRUNCATE).format(filled=sql.SQL("").join(differ)),
            moved=sql.SQL(", ").join(moved for moved, _ in sequences),
            restore=_run_those("moved", [restore for _, restore in sequences]),
        )

    def _is_dirty(self, oid: int, name: sql.Composable) -> sql.Composed:
        if self._may_delete:
            return sql.SQL("exists (select from only {})").format(name)
        # Row security may hide rows from an ordinary role. What it truncates has no size.
        return sql.SQL("pg_relation_size({}) <> 0").format(oid)

    def _empty(self, oid: int, name: sql.Composable) -> sql.Composed:
        if not self._may_delete:
            return sql.SQL("touched := touched || {}::oid;").format(oid)
        return sql.SQL(
            "delete from only {name}; "
            "if pg_relation_size({oid}) > {limit} then grown := array_append(grown, {text}); end if;"
        ).format(oid=oid, name=name, limit=_VACUUM_BYTES, text=name.as_string(self._connection))

    def _sequence(self, oid: int, name: sql.Composable) -> tuple[sql.Composed, sql.Composed]:
        """Return an expression that is true once a sequence has moved, and the statement that puts it back."""
        value, is_called = self._one(sql.SQL("select last_value, is_called from {}").format(name))
        # It forgets values that were logged ahead: taking the next one needs a transaction number, which is seen.
        self._one("select setval(%s::oid::regclass, %s, %s)", oid, value, is_called)
        moved = sql.SQL("pg_sequence_last_value({}) is distinct from {}")
        restore = sql.SQL("perform setval({}::regclass, {}, {});")
        return moved.format(oid, value if is_called else None), restore.format(oid, value, is_called)

    def _count(self, relation: sql.Composable, condition: sql.Composable = _ALL) -> int:
        query = sql.SQL("select count(*) from {} where {}").format(relation, condition)
        return int(self._one(query)[0])


def _differs(relation: sql.Composable, condition: sql.Composable, count: int) -> sql.Composed:
    """Compose an expression that is true once rows were inserted, updated or deleted."""
    return sql.SQL(
        "(select count(*) <> {} or coalesce(bool_or(age(xmin) <= recent), false) from {} where {})"
    ).format(count, relation, condition)


def _run_those(array: LiteralString, statements: list[sql.Composed]) -> sql.Composed:
    """Compose a statement that runs those whose element of the array is true, looking at groups before single ones."""
    each, group = (
        "if {array}[{number}] then {statement} end if;",
        "if true = any({array}[{low}:{high}]) then {} end if;",
    )
    name = sql.SQL(array)
    checked = [
        sql.SQL(each).format(array=name, number=number, statement=statement)
        for number, statement in enumerate(statements, start=1)
    ]
    return sql.SQL("\n    ").join(
        sql.SQL(group).format(
            sql.SQL(" ").join(checked[low : low + _GROUP]), array=name, low=low + 1, high=low + _GROUP
        )
        for low in range(0, len(checked), _GROUP)
    )
