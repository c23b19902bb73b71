"""Make rows for any schema: read the catalog for candidate values, and try them until PostgreSQL accepts one."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice, product

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

ATTEMPTS = 200

# Candidate values by the column's type. The values in a column's CHECKs are tried too.
_VALUES = {
    "boolean": ["true"],
    "jsonb": ["{}", "[]"],
    "json": ["{}"],
    "timestamp with time zone": ["2024-02-29T12:00:00Z"],
    "date": ["2024-02-29"],
    "uuid": ["00000000-0000-4000-8000-000000000001"],
    "bytea": ["x"],
    "interval": ["1 hour"],
}
_COLUMNS = text("""
    SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type,
           a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS wanted,
           (SELECT string_agg(pg_get_constraintdef(c.oid), ' ') FROM pg_constraint AS c
            WHERE c.conrelid = a.attrelid AND c.contype = 'c' AND a.attnum = ANY (c.conkey)) AS checks,
           a.attidentity = 'a' OR a.attgenerated <> '' AS made
    FROM pg_attribute AS a WHERE a.attrelid = CAST(:table AS regclass) AND a.attnum > 0 AND NOT a.attisdropped
""")
_PARENTS = text("""
    SELECT a.attname AS name, c.confrelid::regclass::text AS parent, p.attname AS key
    FROM pg_constraint AS c
    CROSS JOIN LATERAL unnest(c.conkey, c.confkey) AS k (own, theirs)
    JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.own
    JOIN pg_attribute AS p ON p.attrelid = c.confrelid AND p.attnum = k.theirs
    WHERE c.contype = 'f' AND c.conrelid = CAST(:table AS regclass)
""")


def tables(connection: Connection) -> list[str]:
    """List the tables, each after those that it refers to."""
    names = set(
        connection.scalars(
            text(
                "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
                "AND relnamespace = current_schema()::regnamespace AND relname <> 'alembic_version'"
            )
        )
    )
    needs = {
        name: {row.parent for row in connection.execute(_PARENTS, {"table": name})} - {name} for name in names
    }
    ordered: list[str] = []
    while needs:
        free = sorted(name for name, parents in needs.items() if parents <= set(ordered))
        ordered += free or sorted(needs)[:1]  # in a circle, one has to be first
        needs = {name: parents for name, parents in needs.items() if name not in ordered}
    return ordered


def count_rows(connection: Connection) -> Counter[str]:
    return Counter(
        {name: connection.scalar(text(f"SELECT count(*) FROM {name}")) for name in tables(connection)}  # noqa: S608  names from the catalog
    )


def seed(connection: Connection) -> None:
    """Make a row in each empty table, with as many columns filled as possible."""
    for table in tables(connection):
        if connection.scalar(text(f"SELECT EXISTS (SELECT FROM {table})")):  # noqa: S608  a name from the catalog
            continue
        columns = list(connection.execute(_COLUMNS, {"table": table}))
        parents = {row.name: row for row in connection.execute(_PARENTS, {"table": table})}
        candidates = {}
        for column in columns:
            if column.name in parents:
                parent = parents[column.name]
                query = f'SELECT "{parent.key}"::text FROM {parent.parent} LIMIT 1'  # noqa: S608  likewise
                candidates[column.name] = [key for key in [connection.scalar(text(query))] if key is not None]
            else:
                candidates[column.name] = list(possible(column.type, column.checks or ""))
        wanted = [column.name for column in columns if column.wanted]
        made = insert_one_that_passes(connection, table, wanted, candidates)
        rest = [column.name for column in columns if not column.made and column.name not in wanted]
        if made:
            fill(connection, table, rest, candidates)


def possible(type_: str, checks: str) -> Iterator[str]:
    """Yield candidate values: those in the column's CHECKs, then the usual ones for its type."""
    yield from re.findall(r"'([^']+)'::text", checks)
    if type_ in ("bigint", "integer", "smallint", "numeric", "double precision", "real"):
        yield from ("1", "0", "42")
    elif type_ in _VALUES:
        yield from _VALUES[type_]
    else:
        yield from ("something", "a@b.example", "UTC")


def insert_one_that_passes(
    connection: Connection, table: str, names: list[str], candidates: dict[str, list[str]]
) -> bool:
    columns = ", ".join(f'"{name}"' for name in names)
    parameters = ", ".join(f"${number}" for number in range(1, len(names) + 1))
    target = f"({columns}) VALUES ({parameters})" if names else "DEFAULT VALUES"
    for values in islice(product(*(candidates[name] for name in names)), ATTEMPTS):
        if passes(connection, f"INSERT INTO {table} {target}", values):
            return True
    return False


def fill(connection: Connection, table: str, names: list[str], candidates: dict[str, list[str]]) -> None:
    for name in names:
        for value in candidates[name]:
            if passes(connection, f'UPDATE {table} SET "{name}" = $1 WHERE "{name}" IS NULL', (value,)):  # noqa: S608  likewise
                break


def passes(connection: Connection, statement: str, values: tuple[str, ...]) -> bool:
    """Whether PostgreSQL accepts the statement; if it does not, the savepoint is rolled back."""
    # Parameters without a type, so that PostgreSQL reads each one as its column's type.
    for number in range(len(values), 0, -1):
        literal = values[number - 1].replace("'", "''")
        statement = statement.replace(f"${number}", f"'{literal}'")
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    except DBAPIError:
        return False
    return True
