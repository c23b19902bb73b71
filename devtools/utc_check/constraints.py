"""What PostgreSQL itself holds against any client: the range of each column, created_at, and updated_at."""

from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import CheckViolation

from devtools.utc_check.report import Report
from devtools.utc_check.subjects import Round, Row, Subject

OUT_OF_RANGE = (
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00+00 BC",
    "0001-01-01 23:59:59.999999+00",
    "9999-12-31 00:00:00+00",
    "10000-01-01 00:00:00+00",
)
INSIDE = "2024-01-31 12:00:00+00"


def check_ranges(round_: Round, subject: Subject, report: Report) -> None:
    """Write what some client could not read back, by SQL in which none of our code has a part."""
    with round_.engine.begin() as connection:
        (others,) = subject.others(connection, 1)
    with round_.ground.client() as client:
        for column in subject.instants:
            path = f"range/{subject.table.name}.{column.name}"
            if not report.wants(path):
                continue
            for value in OUT_OF_RANGE:
                row = {**others, **{other.name: INSIDE for other in subject.instants}, column.name: value}
                outcome = _refusal(client, _insert(round_, subject, row), row)
                wanted = f"ck_{subject.table.name}_{column.name}_range"
                report.check(
                    path, str(column), value, holds=outcome == wanted, seen=outcome or "it was taken"
                )


def check_kept(round_: Round, subject: Subject, report: Report) -> None:
    """Change a row as raw SQL does, and see whether its timestamps are true to it."""
    if not subject.is_kept or not report.wants(f"trigger/{subject.table.name}"):
        return
    with round_.engine.begin() as connection:
        (others,) = subject.others(connection, 1)
    with round_.ground.client() as client, client.transaction(force_rollback=True):
        _check_row(_KeptRow(client, round_, subject, others), report)


class _KeptRow:
    """One row, seen and changed by a client that has nothing of ours."""

    def __init__(self, client: psycopg.Connection[Any], round_: Round, subject: Subject, others: Row) -> None:
        self.client, self.subject, self.others = client, subject, others
        self.table = round_.ground.table(subject.table)
        self.key_name = sql.Identifier(subject.key.name)
        insert = _insert(round_, subject, others) + sql.SQL(" RETURNING {}").format(self.key_name)
        row = client.execute(insert, list(others.values())).fetchone()
        self.key = row[0] if row else None

    def times(self) -> tuple[int, int]:
        query = sql.SQL(
            "SELECT (extract(epoch FROM created_at) * 1000000)::int8, (extract(epoch FROM updated_at) * 1000000)::int8 "
            "FROM {} WHERE {} = {}"
        ).format(self.table, self.key_name, self.key)
        created, updated = self.client.execute(query).fetchall()[0]
        return created, updated

    def set(self, **values: object) -> str | None:
        statement = sql.SQL("UPDATE {} SET {} WHERE {} = {}").format(
            self.table, _assignments(values), self.key_name, self.key
        )
        return _refusal(self.client, statement, values, keep=True)

    def upsert(self, **values: object) -> str | None:
        """Change the row by an INSERT that conflicts with it."""
        columns = [column.name for column in self.subject.table.c]
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL(
            "INSERT INTO {0} ({1}) OVERRIDING SYSTEM VALUE SELECT {1} FROM {0} WHERE {2} = {3} "
            "ON CONFLICT ({2}) DO UPDATE SET {4}"
        ).format(self.table, names, self.key_name, self.key, _assignments(values))
        return _refusal(self.client, statement, values, keep=True)


def _check_row(row: _KeptRow, report: Report) -> None:
    name = row.subject.table.name
    before = row.times()

    def check(what: str, *, holds: bool, seen: object) -> None:
        report.check(f"trigger/{name}", name, what, holds=holds, seen=seen)

    check("a new row", holds=before[0] == before[1], seen=f"created {before[0]}, updated {before[1]}")
    outcome = row.set(created_at=INSIDE)
    check(
        "created_at set", holds=outcome == f"ck_{name}_created_at_unchanged", seen=outcome or "it was taken"
    )
    outcome = row.set(updated_at=INSIDE)
    check("updated_at forged", holds=row.times() == before, seen=outcome or row.times())
    back = {key: row.others.get(key) for key in row.subject.change}
    changes = (
        ("a change by UPDATE", row.set, row.subject.change),
        ("a change by ON CONFLICT", row.upsert, back),
    )
    for what, change, values in changes:
        last, outcome = row.times(), change(**values)
        now = row.times()
        check(what, holds=now[0] == last[0] and now[1] > last[1], seen=outcome or f"{now} after {last}")
        outcome = change(**values)
        check(f"{what} to what it is", holds=row.times() == now, seen=outcome or f"{row.times()} after {now}")


def _refusal(
    client: psycopg.Connection[Any], statement: sql.Composed, values: Row, *, keep: bool = False
) -> str | None:
    """Return the CHECK that refuses the statement, or other words where it is refused otherwise."""
    try:
        with client.transaction(force_rollback=not keep):
            client.execute(statement, list(values.values()))
    except CheckViolation as error:
        return error.diag.constraint_name
    except psycopg.Error as error:
        return f"{error.sqlstate} {error}"
    return None


def _insert(round_: Round, subject: Subject, row: Row) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        round_.ground.table(subject.table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join([sql.SQL("%s")] * len(row)),
    )


def _assignments(values: Row) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in values)
