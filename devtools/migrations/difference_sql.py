"""The SQL statements that resolve a difference, made from PostgreSQL's own definitions."""

import re
from collections.abc import Iterator

from backend.migrations.catalog import Catalog, Facts, Thing
from backend.migrations.drift import Difference

CONSTRAINTS = ("primary key", "unique constraint", "CHECK", "exclusion constraint", "foreign key")
OF_TABLE = ("trigger", "rule", "policy")
OLD = "_before"  # the suffix of a type's name while it is replaced
FILLS = ("default", "generated", "identity")
"""The facts of a column that give it a value in existing rows."""


def alternatives(difference: Difference, wanted: Catalog, *, back: bool = False) -> list[list[str]]:
    """Return the ways to resolve the difference, best first, each as a list of statements; none if a person must do it.

    With `back`, the statements are for a downgrade, where rows may lack the dropped values: then a NOT NULL column
    without a default stays nullable, a foreign key stays NOT VALID, and a primary key is not restored.
    """
    thing = difference.thing
    if thing.kind == "column":
        return _column(difference, wanted, back=back)
    if difference.what == "extra":
        return [[drop(thing)]]
    if difference.what == "changed" and difference.changed == ["comment"]:
        return [[_comment(thing, difference.expected.get("comment"))]]
    if back and thing.kind == "primary key":
        gone = [drop(thing)] if difference.what == "changed" else []
        made = create(thing, difference.expected, wanted)
        return [[*gone, _unless(made[0], "not_null_violation OR unique_violation", "NULL")]]
    if difference.what == "missing":
        made = create(thing, difference.expected, wanted)
        if back and thing.kind == "foreign key":
            unchecked = f"{made[0].removesuffix(' NOT VALID')} NOT VALID"
            made = [_unless(made[0], "foreign_key_violation", unchecked)]
        return [made] if made else []
    return _changed(difference, wanted)


def drop(thing: Thing) -> str:
    """Return the statement that drops it, without anything that depends on it."""
    if thing.kind == "column":
        return f"ALTER TABLE {thing.table} DROP COLUMN {thing.name}"
    if thing.kind in CONSTRAINTS:
        # A primary key may be missing because a downgrade did not restore it.
        there = "IF EXISTS " if thing.kind == "primary key" else ""
        return f"ALTER TABLE {thing.table} DROP CONSTRAINT {there}{thing.name}"
    return f"DROP {thing.kind.upper()} {thing.name}{f' ON {thing.table}' if thing.kind in OF_TABLE else ''}"


def create(thing: Thing, facts: Facts, wanted: Catalog) -> list[str]:  # noqa: PLR0911  one for each kind
    """Return the statements that create a thing with these facts; comments are added once it exists."""
    kind, name, definition = thing.kind, thing.name, facts.get("definition")
    if kind == "table":
        owned = {each: of for each, of in wanted.items() if of.get("owned by", "").rpartition(".")[0] == name}
        sequences = [f"CREATE SEQUENCE {each.name} {of['definition']}" for each, of in owned.items()]
        owners = [f"ALTER SEQUENCE {each.name} OWNED BY {of['owned by']}" for each, of in owned.items()]
        return [*sequences, _create_table(thing, facts, wanted), *owners]
    if kind in CONSTRAINTS:
        return [f"ALTER TABLE {thing.table} ADD CONSTRAINT {name} {definition}"]
    if kind == "policy":
        return [f"CREATE POLICY {name} ON {thing.table} {definition}"]
    if kind == "trigger":
        return [str(definition), *(_trigger_state(thing, facts) if "state" in facts else [])]
    if kind in ("view", "materialized view"):
        return [f"CREATE {kind.upper()} {name}{_with(facts)} AS\n{definition}"]
    if kind in ("sequence", "domain"):
        return [f"CREATE {kind.upper()} {name} {'AS ' if kind == 'domain' else ''}{definition}"]
    if kind == "type":
        shapes = {"values": "AS ENUM (%s)", "columns": "AS (%s)", "subtype": "AS RANGE (SUBTYPE = %s)"}
        return [
            f"CREATE TYPE {name} {shape % facts[fact]}" for fact, shape in shapes.items() if fact in facts
        ]
    if kind in ("schema", "extension"):
        return [f"CREATE {kind.upper()} IF NOT EXISTS {name}"]
    return [definition] if definition else []


def _create_table(thing: Thing, facts: Facts, wanted: Catalog) -> str:
    create = f"CREATE{' UNLOGGED' if 'logging' in facts else ''} TABLE {thing.name}"
    if "partition of" in facts:
        parent, _, bound = facts["partition of"].partition(" ")
        partitioned = f" PARTITION BY {facts['partition key']}" if "partition key" in facts else ""
        return f"{create} PARTITION OF {parent} {bound}{partitioned}"
    parts = {each: of for each, of in wanted.items() if each.table == thing.name}
    lines = [f"{each.name} {column_definition(of)}" for each, of in parts.items() if each.kind == "column"]
    lines += [
        f"CONSTRAINT {each.name} {of['definition']}"
        for each, of in parts.items()
        if each.kind in CONSTRAINTS and each.kind != "foreign key"
    ]
    clauses = {
        "inherits": " INHERITS (%s)",
        "partition key": " PARTITION BY %s",
        "access method": " USING %s",
    }
    tail = "".join(clause % facts[fact] for fact, clause in clauses.items() if fact in facts) + _with(facts)
    tail += f" TABLESPACE {facts['tablespace']}" if "tablespace" in facts else ""
    return f"{create} (\n    " + ",\n    ".join(lines) + f"\n){tail}"


def column_definition(facts: Facts) -> str:
    written = [facts["type"], f"COLLATE {facts['collation']}" if "collation" in facts else ""]
    written += [f"DEFAULT {facts['default']}"] if "default" in facts else []
    written += [f"GENERATED {facts[fact]}" for fact in ("generated", "identity") if fact in facts]
    return " ".join([*filter(None, written), *(["NOT NULL"] if facts["nullability"] == "NOT NULL" else [])])


def _column(difference: Difference, catalog: Catalog, *, back: bool) -> list[list[str]]:
    thing, wanted, there = difference.thing, difference.expected, difference.actual
    alter = f"ALTER TABLE {thing.table}"
    if difference.what == "extra":
        return [[drop(thing)]]
    filled = any(fact in wanted for fact in FILLS)
    facts = wanted if filled else wanted | {"nullability": "NULL"}
    add = f"{alter} ADD COLUMN {thing.name} {column_definition(facts)}"
    if difference.what == "missing":
        return [[add]]
    changed, column = difference.changed, f"ALTER COLUMN {thing.name}"
    if "generated" in changed:
        again = [drop(thing), add]
        return [again] if "generated" in wanted else [[f"{alter} {column} DROP EXPRESSION"], again]
    made: list[str] = []
    made += [f"{alter} {column} DROP IDENTITY"] if "identity" not in wanted and "identity" in there else []
    set_default = f"SET DEFAULT {wanted['default']}" if "default" in wanted else "DROP DEFAULT"
    after = [f"{alter} {column} {set_default}"] if {"default"} & set(changed) else []
    if "nullability" in changed:
        after += _nullability(difference, catalog, back=back)
    if "identity" in changed and "identity" in wanted:
        after += _identity(thing, wanted["identity"], is_new="identity" not in there)
    after += [_comment(thing, wanted.get("comment"))] if "comment" in changed else []
    if not {"type", "collation"} & set(changed):
        ways = [[*made, *after], made, [each + " RESTART" for each in after if "SET GENERATED" in each]]
        return [way for way in ways if way]
    is_enumeration = "values" in catalog.get(Thing("", "type", wanted["type"].removesuffix("[]")), {})
    ways = [[*made, *way, *after] for way in _type(thing, wanted, there, is_cast_by_text=is_enumeration)]
    return [*ways, made] if made else ways


def _nullability(difference: Difference, catalog: Catalog, *, back: bool) -> list[str]:
    thing, wanted = difference.thing, difference.expected
    alter = f"ALTER TABLE {thing.table} ALTER COLUMN {thing.name}"
    if wanted["nullability"] != "NOT NULL":
        return [f"{alter} DROP NOT NULL"]
    if "default" in wanted:
        fill = f"UPDATE {thing.table} SET {thing.name} = DEFAULT WHERE {thing.name} IS NULL"  # noqa: S608  catalog's names
        # Deferred checks of changed rows must run before the table can be altered.
        deferred = any("DEFERRABLE" in of.get("definition", "") for of in catalog.values())
        return [fill, *(["SET CONSTRAINTS ALL IMMEDIATE"] if deferred else []), f"{alter} SET NOT NULL"]
    if "identity" in wanted:
        return [f"{alter} SET NOT NULL"]
    if not back:
        return []
    return [_unless(f"{alter} SET NOT NULL", "not_null_violation", "NULL")]


def _unless(statement: str, error: str, otherwise: str) -> str:
    return f"DO $$BEGIN {statement}; EXCEPTION WHEN {error} THEN {otherwise}; END$$"


def _identity(thing: Thing, identity: str, *, is_new: bool) -> list[str]:
    alter = f"ALTER TABLE {thing.table} ALTER COLUMN {thing.name}"
    if not is_new:
        always, _, options = identity.partition(" AS IDENTITY ")
        options = re.sub(
            "(START|INCREMENT|MINVALUE|MAXVALUE|CACHE|(?:NO )?CYCLE)", r"SET \1", options.strip("()")
        )
        return [f"{alter} SET GENERATED {always} {options}"]
    sequence = f"pg_get_serial_sequence({literal(thing.table)}, {literal(names(thing.name)[0])})"
    highest = f"SELECT setval({sequence}, max({thing.name})) FROM {thing.table} HAVING max({thing.name}) > 0"  # noqa: S608  catalog's names
    return [f"{alter} ADD GENERATED {identity}", highest]


def _type(thing: Thing, wanted: Facts, there: Facts, *, is_cast_by_text: bool) -> Iterator[list[str]]:
    alter = f"ALTER TABLE {thing.table}"
    column = f"ALTER COLUMN {thing.name}"
    to = f"{column} TYPE {wanted['type']}" + (
        f" COLLATE {wanted['collation']}" if "collation" in wanted else ""
    )
    yield [f"{alter} {to}"]
    clear = f"{column} DROP DEFAULT, " if "default" in there else ""
    default = f", {column} SET DEFAULT {wanted['default']}" if "default" in wanted else ""
    yield [f"{alter} {clear}{to} USING {thing.name}::{wanted['type']}{default}"]
    if OLD in there["type"] or is_cast_by_text:
        yield [f"{alter} {clear}{to} USING {thing.name}::text::{wanted['type']}{default}"]


def _changed(difference: Difference, wanted: Catalog) -> list[list[str]]:  # noqa: PLR0911  likewise
    thing, facts, there = difference.thing, difference.expected, difference.actual
    changed, created = set(difference.changed), create(thing, facts, wanted)
    if thing.kind == "table":
        return [made] if (made := _changed_table(thing, facts, there, changed)) else []
    if thing.kind == "view":
        return [[created[0].replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1)], [drop(thing), *created]]
    if thing.kind in ("function", "procedure"):
        return [created, [drop(thing), *created]]
    if thing.kind == "trigger" and "definition" not in changed:
        return [_trigger_state(thing, facts)]
    if thing.kind == "sequence":
        owner = f"ALTER SEQUENCE {thing.name} OWNED BY {facts.get('owned by', 'NONE')}"
        same = [f"ALTER SEQUENCE {thing.name} {facts['definition']}"] if "definition" in changed else []
        return [[*same, *([owner] if "owned by" in changed else [])]]
    if thing.kind in ("type", "domain"):
        old = names(thing.name)[-1] + OLD
        return [[f"ALTER {thing.kind.upper()} {thing.name} RENAME TO {quoted(old)}", *created]]
    return [[drop(thing), *created]] if created else []


def _changed_table(thing: Thing, facts: Facts, there: Facts, changed: set[str]) -> list[str]:
    alter, made = f"ALTER TABLE {thing.name}", []
    if "storage parameters" in changed:
        now, then = (_parameters(each) for each in (there, facts))
        made += [f"{alter} RESET ({', '.join(sorted(gone))})"] if (gone := now.keys() - then.keys()) else []
        made += (
            [f"{alter} SET ({', '.join(f'{name}={value}' for name, value in then.items())})"] if then else []
        )
    if "logging" in changed:
        made.append(f"{alter} SET {facts.get('logging', 'LOGGED')}")
    if "row security" in changed:
        forced = "NO FORCE" if facts.get("row security") != "FORCE" else "FORCE"
        made.append(f"{alter} {'ENABLE' if 'row security' in facts else 'DISABLE'} ROW LEVEL SECURITY")
        made.append(f"{alter} {forced} ROW LEVEL SECURITY")
    if "tablespace" in changed:
        made.append(f"{alter} SET TABLESPACE {facts.get('tablespace', 'pg_default')}")
    return made + ([_comment(thing, facts.get("comment"))] if "comment" in changed else [])


def added_values(difference: Difference) -> list[str]:
    """Return the statements that add values to an enumeration; none if a value was removed or moved."""
    there, wanted = ((of.get("values") or "").split(", ") for of in (difference.actual, difference.expected))
    if difference.thing.kind != "type" or difference.what != "changed" or difference.changed != ["values"]:
        return []
    if [value for value in wanted if value in there] != there:
        return []
    return [
        f"ALTER TYPE {difference.thing.name} ADD VALUE IF NOT EXISTS {value}"
        + (f" AFTER {wanted[place - 1]}" if place else f" BEFORE {there[0]}")
        for place, value in enumerate(wanted)
        if value not in there
    ]


def _trigger_state(thing: Thing, facts: Facts) -> list[str]:
    return [f"ALTER TABLE {thing.table} {facts.get('state', 'ENABLE')} TRIGGER {thing.name}"]


def _comment(thing: Thing, comment: str | None) -> str:
    kind, name = thing.kind.upper(), thing.name
    if thing.kind == "column":
        name = f"{thing.table}.{name}"
    elif thing.kind in CONSTRAINTS or thing.kind in OF_TABLE:
        kind, name = "CONSTRAINT" if thing.kind in CONSTRAINTS else kind, f"{name} ON {thing.table}"
    return f"COMMENT ON {kind} {name} IS {'NULL' if comment is None else literal(comment)}"


def _with(facts: Facts) -> str:
    return f" WITH ({facts['storage parameters']})" if "storage parameters" in facts else ""


def _parameters(facts: Facts) -> dict[str, str]:
    given = facts.get("storage parameters", "").split(", ")
    return dict(parameter.split("=", 1) for parameter in given if parameter)


def names(identifier: str) -> list[str]:
    """Split a qualified SQL identifier into its names: `audit."Odd"` gives audit and Odd."""
    return [
        bare or inner.replace('""', '"')
        for inner, bare in re.findall(r'"((?:[^"]|"")+)"|([^".]+)', identifier)
    ]


def quoted(name: str) -> str:
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
