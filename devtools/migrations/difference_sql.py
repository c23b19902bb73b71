"""The SQL statements that resolve a difference, made from PostgreSQL's own definitions."""

import re

from backend.migrations.catalog import Catalog, Facts, Thing
from backend.migrations.drift import Difference

CONSTRAINTS = ("primary key", "unique constraint", "CHECK", "exclusion constraint", "foreign key")
FILLS = {"default", "generated", "identity"}
"""The facts of a column that give it a value in existing rows."""
OLD = "_before"  # the suffix of a type's name while it is replaced


def alternatives(difference: Difference, wanted: Catalog, *, back: bool = False) -> list[list[str]]:
    """Return the ways to resolve the difference, best first, each as a list of statements; none if a person must do it.

    With `back`, the statements are for a downgrade, where rows may lack the dropped values: then a NOT NULL column
    without a default stays nullable, a foreign key stays NOT VALID, and a primary key is not restored.
    """
    thing, facts = difference.thing, difference.expected
    if difference.what == "extra":
        return [[drop(thing)]]
    if difference.what == "changed" and "comment" in difference.changed:
        return [[_comment(thing, facts.get("comment"))]]
    if thing.kind == "column":
        return _column(difference, wanted, back=back)
    made = create(thing, facts, wanted)
    if back and thing.kind == "foreign key":
        unchecked = f"{made[0].removesuffix(' NOT VALID')} NOT VALID"
        made = [_unless(made[0], "foreign_key_violation", unchecked)]
    if back and thing.kind == "primary key":
        made = [_unless(made[0], "not_null_violation OR unique_violation", "NULL")]
    ways = [made] if difference.what == "missing" else _changed(difference, made, wanted)
    return [way for way in ways if way]


def drop(thing: Thing) -> str:
    """Return the statement that drops it, without anything that depends on it."""
    if thing.kind == "column":
        return f"ALTER TABLE {thing.table} DROP COLUMN {thing.name}"
    if thing.kind in CONSTRAINTS:
        # A primary key may be missing because a downgrade did not restore it.
        there = "IF EXISTS " if thing.kind == "primary key" else ""
        return f"ALTER TABLE {thing.table} DROP CONSTRAINT {there}{thing.name}"
    on = f" ON {thing.table}" if thing.kind in ("trigger", "rule", "policy") else ""
    return f"DROP {thing.kind.upper()} {thing.name}{on}"


def create(thing: Thing, facts: Facts, wanted: Catalog) -> list[str]:
    """Return the statements that create a thing with these facts; comments are added once it exists."""
    kind, name, definition = thing.kind, thing.name, facts.get("definition")
    if kind == "table":
        return [_create_table(thing, facts, wanted)]
    if kind in CONSTRAINTS:
        return [f"ALTER TABLE {thing.table} ADD CONSTRAINT {name} {definition}"]
    if kind in ("schema", "extension"):
        return [f"CREATE {kind.upper()} IF NOT EXISTS {name}"]
    if kind in ("sequence", "domain", "type"):
        return [f"CREATE {kind.upper()} {name} " + (definition or f"AS ENUM ({facts['values']})")]
    if kind in ("view", "materialized view"):
        options = f" WITH ({facts['storage parameters']})" if "storage parameters" in facts else ""
        replace = "OR REPLACE " if kind == "view" else ""
        return [f"CREATE {replace}{kind.upper()} {name}{options} AS\n{definition}"]
    state = [f"ALTER TABLE {thing.table} {facts['state']} TRIGGER {name}"] if "state" in facts else []
    return [definition, *state] if definition else []


def _create_table(thing: Thing, facts: Facts, wanted: Catalog) -> str:
    create = f"CREATE{' UNLOGGED' if 'logging' in facts else ''} TABLE {thing.name}"
    clauses = {
        "inherits": " INHERITS (%s)",
        "partition key": " PARTITION BY %s",
        "access method": " USING %s",
        "storage parameters": " WITH (%s)",
        "tablespace": " TABLESPACE %s",
    }
    tail = "".join(clause % facts[fact] for fact, clause in clauses.items() if fact in facts)
    if "partition of" in facts:
        return f"{create} PARTITION OF {facts['partition of']}{tail}"
    parts = {each: of for each, of in wanted.items() if each.table == thing.name}
    lines = [f"{each.name} {_definition(of)}" for each, of in parts.items() if each.kind == "column"]
    lines += [
        f"CONSTRAINT {each.name} {of['definition']}"
        for each, of in parts.items()
        if each.kind in CONSTRAINTS and each.kind != "foreign key"
    ]
    return f"{create} (\n    " + ",\n    ".join(lines) + f"\n){tail}"


def _definition(column: Facts) -> str:
    words = {"collation": "COLLATE", "default": "DEFAULT"}
    facts = [fact for fact in ("collation", "default", "generated", "identity") if fact in column]
    written = [f"{words.get(fact, 'GENERATED')} {column[fact]}" for fact in facts]
    not_null = ["NOT NULL"] if column["nullability"] == "NOT NULL" else []
    return " ".join([column["type"], *written, *not_null])


def _column(difference: Difference, wanted: Catalog, *, back: bool) -> list[list[str]]:  # noqa: PLR0911  one for each fact
    """Return the ways to add a column, or to resolve the first of its differences; the others follow."""
    thing, facts, there = difference.thing, difference.expected, difference.actual
    changed = difference.changed
    column = f"ALTER TABLE {thing.table} ALTER COLUMN {thing.name}"
    definition = _definition(facts if facts.keys() & FILLS else facts | {"nullability": "NULL"})
    add = f"ALTER TABLE {thing.table} ADD COLUMN {thing.name} {definition}"
    if difference.what == "missing":
        return [[add]]
    if "generated" in changed:
        again = [drop(thing), add]
        return [again] if "generated" in facts else [[f"{column} DROP EXPRESSION"], again]
    # The old identity or default goes first: the new sequence may need its name.
    if "identity" in there.keys() - facts.keys():
        return [[f"{column} DROP IDENTITY"]]
    if "default" in there.keys() - facts.keys():
        return [[f"{column} DROP DEFAULT"]]
    if "type" in changed or "collation" in changed:
        return _type(difference, wanted)
    if "default" in changed:
        owned = [each for each, of in wanted.items() if of.get("owned by") == f"{thing.table}.{thing.name}"]
        continued = [_continue(thing, literal(each.name), wanted[each]["definition"]) for each in owned]
        return [[f"{column} SET DEFAULT {facts['default']}", *continued]]
    if "nullability" in changed:
        return _nullability(difference, column, wanted, back=back)
    return _identity(difference, column)


def _type(difference: Difference, wanted: Catalog) -> list[list[str]]:
    thing, facts, there = difference.thing, difference.expected, difference.actual
    alter, column = f"ALTER TABLE {thing.table}", f"ALTER COLUMN {thing.name}"
    to = f"{column} TYPE {facts['type']}" + (f" COLLATE {facts['collation']}" if "collation" in facts else "")
    is_enumeration = "values" in wanted.get(Thing("", "type", facts["type"].removesuffix("[]")), {})
    cast = f"{'::text' if is_enumeration or OLD in there['type'] else ''}::{facts['type']}"
    clear = f"{column} DROP DEFAULT, " if "default" in there else ""
    default = f", {column} SET DEFAULT {facts['default']}" if "default" in facts else ""
    return [[f"{alter} {to}"], [f"{alter} {clear}{to} USING {thing.name}{cast}{default}"]]


def _nullability(difference: Difference, column: str, wanted: Catalog, *, back: bool) -> list[list[str]]:
    thing, facts = difference.thing, difference.expected
    if facts["nullability"] != "NOT NULL":
        return [[f"{column} DROP NOT NULL"]]
    if "default" in facts:
        fill = f"UPDATE {thing.table} SET {thing.name} = DEFAULT WHERE {thing.name} IS NULL"
        # Deferred checks of the filled rows must run before the table can be altered.
        is_deferred = any("DEFERRABLE" in of.get("definition", "") for of in wanted.values())
        return [[fill, *["SET CONSTRAINTS ALL IMMEDIATE"] * is_deferred, f"{column} SET NOT NULL"]]
    if "identity" in facts:
        return [[f"{column} SET NOT NULL"]]
    return [[_unless(f"{column} SET NOT NULL", "not_null_violation", "NULL")]] if back else []


def _identity(difference: Difference, column: str) -> list[list[str]]:
    thing, identity = difference.thing, difference.expected["identity"]
    sequence = f"pg_get_serial_sequence({literal(thing.table)}, {literal(names(thing.name)[0])})"
    add = [f"{column} ADD GENERATED {identity}", _continue(thing, sequence, identity)]
    if "identity" not in difference.actual:
        return [add]
    always, _, options = identity.partition(" AS IDENTITY ")
    options = re.sub("(START|INCREMENT|MINVALUE|MAXVALUE|CACHE|(NO )?CYCLE)", r"SET \1", options.strip("()"))
    return [[f"{column} SET GENERATED {always} {options}"], [f"{column} DROP IDENTITY", *add]]


def _continue(thing: Thing, sequence: str, options: str) -> str:
    """Return the statement that moves a new sequence past the rows that exist."""
    start = options.partition("START WITH ")[2].partition(" ")[0]
    highest = f"max({thing.name})"
    return f"SELECT setval({sequence}, {highest}) FROM {thing.table} HAVING {highest} >= {start}"


def _unless(statement: str, error: str, otherwise: str) -> str:
    return f"DO $$BEGIN {statement}; EXCEPTION WHEN {error} THEN {otherwise}; END$$"


def _changed(difference: Difference, created: list[str], wanted: Catalog) -> list[list[str]]:
    thing, facts = difference.thing, difference.expected
    if thing.kind == "table":
        return [_changed_table(difference)]
    if thing.kind == "sequence":
        return [
            [f"ALTER SEQUENCE {thing.name} {facts['definition']} OWNED BY {facts.get('owned by', 'NONE')}"]
        ]
    if thing.kind in ("type", "domain"):
        old = (names(thing.name)[-1] + OLD).replace('"', '""')
        replace = [f'ALTER {thing.kind.upper()} {thing.name} RENAME TO "{old}"', *created]
        return [_added_values(difference, wanted) or replace]
    again = [drop(thing), *created] if created else []
    return [created, again] if thing.kind in ("function", "procedure", "view") else [again]


def _changed_table(difference: Difference) -> list[str]:
    facts, there, changed = difference.expected, difference.actual, difference.changed
    made = []
    if "storage parameters" in changed:
        set_before = [each.partition("=")[0] for each in there.get("storage parameters", "").split(", ")]
        made += [f"RESET ({', '.join(set_before)})"] if any(set_before) else []
        made += [f"SET ({facts['storage parameters']})"] if "storage parameters" in facts else []
    if "logging" in changed:
        made.append(f"SET {facts.get('logging', 'LOGGED')}")
    if "row security" in changed:
        made.append(f"{'ENABLE' if 'row security' in facts else 'DISABLE'} ROW LEVEL SECURITY")
        made.append(f"{'' if facts.get('row security') == 'FORCE' else 'NO '}FORCE ROW LEVEL SECURITY")
    if "tablespace" in changed:
        made.append(f"SET TABLESPACE {facts.get('tablespace', 'pg_default')}")
    return [f"ALTER TABLE {difference.thing.name} {each}" for each in made]


def _added_values(difference: Difference, wanted: Catalog) -> list[str]:
    """Return the statements that add values to an enumeration; none if a value is removed, moved or already used.

    A value cannot be used, for example as a default, in the transaction that adds it.
    """
    name = difference.thing.name
    there, then = values(difference.actual), values(difference.expected)
    new = [value for value in then if value not in there]
    uses = "\n".join(fact for of in wanted.values() for fact in of.values() if f"::{name}" in fact)
    is_used = any(re.search(rf"(?<!\w){re.escape(value[1:-1])}(?!\w)", uses) for value in new)
    if is_used or not there or [value for value in then if value in there] != there:
        return []
    places = [f"BEFORE {there[0]}", *(f"AFTER {value}" for value in then)]
    return [f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {value} {places[then.index(value)]}" for value in new]


def _comment(thing: Thing, comment: str | None) -> str:
    kind, name = thing.kind.upper(), thing.name
    if thing.kind == "column":
        name = f"{thing.table}.{name}"
    elif thing.kind in CONSTRAINTS:
        kind, name = "CONSTRAINT", f"{name} ON {thing.table}"
    return f"COMMENT ON {kind} {name} IS {'NULL' if comment is None else literal(comment)}"


def names(identifier: str) -> list[str]:
    """Split a qualified SQL identifier into its names: `audit."Odd"` gives audit and Odd."""
    return [
        bare or inner.replace('""', '"')
        for inner, bare in re.findall(r'"((?:[^"]|"")+)"|([^".]+)', identifier)
    ]


def values(enumeration: Facts) -> list[str]:
    """Return the values of an enumeration as literals; empty for another type."""
    return re.findall("'(?:[^']|'')*'", enumeration.get("values", ""))


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
