"""The tables of a database that a reset empties, in the order in which it may, and those that resist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TABLES = """
    select c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname),
           exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgtype & 8 = 8 and
                          (t.tgenabled in ('A', 'R') or t.tgenabled = 'O' and not tgisinternal and not %(replica)s))
           or not %(replica)s and (c.relforcerowsecurity
              or exists (select from pg_rewrite where ev_class = c.oid and ev_type = '4')
              or exists (select from pg_constraint where conrelid = c.oid and confrelid = c.oid and confdeltype = 'r')),
           (select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
             where attrelid = c.oid and attnum > 0 and not attisdropped and attgenerated = ''),
           not %(replica)s and exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgtype & 4 = 4
                                        and not tgisinternal and t.tgenabled <> 'D')
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and c.relpersistence <> 't'
       and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
       and not exists (select from pg_depend d
                        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
     order by 1
"""
# What refers to what; a partition is referred to where its parent is.
REFERENCES = "select conrelid, confrelid from pg_constraint where contype = 'f' and conrelid <> confrelid"

SEQUENCES = """
    select c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'S' and c.relpersistence <> 't' order by 1
"""


@dataclass
class Table:
    oid: int
    name: str
    resists: bool
    columns: str | None
    insert_triggers: bool
    seeded: bool = False


def state(table: Table) -> str:
    """Return an expression that changes whenever the rows of a table were written; the price is a scan of them."""
    if not table.seeded:
        return f"(select exists (select from only {table.name})::text)"
    return (
        f"(select count(*) || ' ' || coalesce(sum(hashtextextended(ctid::text || xmin::text, 0)), 0) "
        f"from only {table.name})"
    )


def children_first(
    tables: dict[int, Table], references: list[Any], *, by_order: bool
) -> tuple[list[Table], set[int]]:
    """Order tables so that none comes before one that refers to it; return also those that no order suits."""
    parents_of: dict[int, set[int]] = {oid: set() for oid in tables}
    for child, parent in references:
        parents_of[child].add(parent)
    ordered: list[Table] = []
    waiting = dict.fromkeys(tables)
    while waiting:
        referred = {parent for oid in waiting for parent in parents_of[oid]}
        free = [oid for oid in waiting if oid not in referred]
        if not free:
            rest = list(waiting)
            return ordered + [tables[oid] for oid in rest], set(rest) if by_order else set()
        ordered += [tables[oid] for oid in free]
        for oid in free:
            del waiting[oid]
    return ordered, set()
