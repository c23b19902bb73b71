"""The SQL that puts a difference right, where a statement or two can."""

from sqlalchemy.dialects import postgresql

from backend.migrations.drift import Difference

_PREPARER = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]  # SQLAlchemy's gap

CONSTRAINTS = ("primary key", "unique constraint", "foreign key", "exclusion constraint", "CHECK")
_STATES = {"disabled": "DISABLE", "on replicas alone": "ENABLE REPLICA", "always": "ENABLE ALWAYS"}


def statements(difference: Difference) -> list[str]:
    """Return what makes the thing as it should be; nothing where that takes a person, as a whole table does."""
    thing, table, name = difference.thing, quoted(difference.thing.table), quoted(difference.thing.name)
    if thing.kind == "column":
        return _column(difference, f"ALTER TABLE {table}", name)
    if thing.kind == "table":
        return _table(difference, table)
    dropped = [] if difference.what == "missing" else _drop(thing.kind, table, name, thing.name)
    definition = difference.expected.get("definition", "").rstrip().rstrip(";")
    commented = "comment" in difference.expected.keys() | difference.actual.keys()
    if difference.what == "extra":
        return dropped
    return [] if commented or not definition else _define(difference, dropped, definition)


def _define(difference: Difference, dropped: list[str], definition: str) -> list[str]:
    kind, table, name = difference.thing.kind, quoted(difference.thing.table), quoted(difference.thing.name)
    if kind in CONSTRAINTS:
        return [*dropped, f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"]
    if kind in ("view", "materialized view"):
        return [*dropped, f"CREATE {kind.upper()} {name} AS {definition}"]
    if kind in ("function", "procedure"):
        return [definition]
    if kind == "trigger":
        return [*_trigger(difference, dropped, definition), *_trigger_state(difference, table, name)]
    return [*dropped, definition] if kind in ("index", "statistics", "rule") else []


def _column(difference: Difference, alter: str, name: str) -> list[str]:
    wanted = difference.expected
    if difference.what == "extra":
        return [f"{alter} DROP COLUMN {name}"]
    if wanted.keys() - {"type", "nullability", "default"} or difference.actual.keys() - {
        "type", "nullability", "default"
    }:  # fmt: skip
        return []
    null = " NOT NULL" if wanted["nullability"] == "NOT NULL" else ""
    if difference.what == "missing":
        default = f" DEFAULT {wanted['default']}" if "default" in wanted else ""
        return [f"{alter} ADD COLUMN {name} {wanted['type']}{default}{null}"]
    made = []
    if wanted["type"] != difference.actual["type"]:
        made.append(f"{alter} ALTER COLUMN {name} TYPE {wanted['type']}")
    if wanted.get("default") != difference.actual.get("default"):
        default = f"SET DEFAULT {wanted['default']}" if "default" in wanted else "DROP DEFAULT"
        made.append(f"{alter} ALTER COLUMN {name} {default}")
    if wanted["nullability"] != difference.actual["nullability"]:
        made.append(f"{alter} ALTER COLUMN {name} {'SET' if null else 'DROP'} NOT NULL")
    return made


def _table(difference: Difference, table: str) -> list[str]:
    if difference.what == "extra":
        return [f"DROP TABLE {table}"]
    changed = {
        name
        for name in difference.expected.keys() | difference.actual.keys()
        if difference.expected.get(name) != difference.actual.get(name)
    }
    if difference.what == "missing" or changed != {"storage parameters"}:
        return []
    wanted, there = (
        dict(parameter.split("=", 1) for parameter in facts.get("storage parameters", "").split(", ") if parameter)
        for facts in (difference.expected, difference.actual)
    )  # fmt: skip
    made = []
    if gone := there.keys() - wanted.keys():
        made.append(f"ALTER TABLE {table} RESET ({', '.join(sorted(gone))})")
    if wanted:
        made.append(
            f"ALTER TABLE {table} SET ({', '.join(f'{name}={value}' for name, value in wanted.items())})"
        )
    return made


def _drop(kind: str, table: str, name: str, plain: str) -> list[str]:
    if kind in CONSTRAINTS:
        return [f"ALTER TABLE {table} DROP CONSTRAINT {name}"]
    if kind in ("trigger", "rule", "policy"):
        return [f"DROP {kind.upper()} {name} ON {table}"]
    if kind in ("function", "procedure", "aggregate"):
        return [f"DROP {kind.upper()} {plain}"]  # quoted by PostgreSQL, arguments and all
    return [f"DROP {kind.upper()} {name}{' CASCADE' if kind == 'schema' else ''}"]


def _trigger(difference: Difference, dropped: list[str], definition: str) -> list[str]:
    if difference.expected.get("definition") == difference.actual.get("definition"):
        return []
    return [*dropped, definition]


def _trigger_state(difference: Difference, table: str, name: str) -> list[str]:
    wanted = difference.expected.get("state")
    if wanted == difference.actual.get("state"):
        return []
    return [f"ALTER TABLE {table} {_STATES.get(wanted or '', 'ENABLE')} TRIGGER {name}"]


def quoted(name: str) -> str:
    """Quote an identifier where it needs it."""
    written: str = _PREPARER.quote(name)
    return written
