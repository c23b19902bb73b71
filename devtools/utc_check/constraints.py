"""What PostgreSQL enforces for any client: the range of each column, created_at and updated_at."""

from psycopg.errors import CheckViolation, Error

from devtools.utc_check.cases import IN_RANGE, OUT_OF_RANGE
from devtools.utc_check.paths import insert_statement, stored
from devtools.utc_check.proof_report import Report
from devtools.utc_check.subjects import Row, Subject, Target


def check_ranges(target: Target, subject: Subject, report: Report) -> None:
    """Insert what some client could not read, in SQL."""
    for name in subject.names:
        path = f"range/{subject.table.name}.{name}"
        for value in OUT_OF_RANGE if report.wants(path) else ():
            row = {**_row(target, subject), name: value}
            seen = _execute(target, insert_statement(target, subject, row, "%s"), row)
            report.check(path, "CHECK", value, ok=seen == f"ck_{subject.table.name}_{name}_range", seen=seen)


def check_trigger(target: Target, subject: Subject, report: Report) -> None:
    """Change a row in SQL, and compare its created_at and updated_at."""
    table, path = subject.table.name, f"trigger/{subject.table.name}"
    if "updated_at" not in subject.names or not report.wants(path):
        return
    with target.plain.transaction(force_rollback=True):
        row = {name: value for name, value in _row(target, subject).items() if name not in subject.names}
        _execute(target, insert_statement(target, subject, row, "%s"), row)
        before = _times(target, subject)
        report.check(path, table, "a new row", ok=before[0] == before[1], seen=before)
        seen = _update(target, subject, {"created_at": IN_RANGE})
        report.check(path, table, "created_at set", ok=seen == f"ck_{table}_created_at_unchanged", seen=seen)
        seen = _update(target, subject, {"updated_at": IN_RANGE})
        report.check(path, table, "updated_at set", ok=_times(target, subject) == before, seen=seen)
        seen = _update(target, subject, subject.change)
        after = _times(target, subject)
        ok = before[0] == after[0] and before[1] < after[1]
        report.check(path, table, "a change", ok=ok, seen=f"{seen}: {before}, {after}")
        seen = _update(target, subject, subject.change)
        again = _times(target, subject)
        report.check(path, table, "no change", ok=again == after, seen=f"{seen}: {after}, {again}")


def _row(target: Target, subject: Subject) -> Row:
    with target.engine.begin() as connection:
        return subject.row(connection, IN_RANGE)


def _times(target: Target, subject: Subject) -> tuple[int, int]:
    """Return created_at and updated_at of the last row."""
    numbers = dict(zip(subject.names, stored(target, subject, 0)[-1][1:], strict=True))
    return numbers["created_at"], numbers["updated_at"]


def _update(target: Target, subject: Subject, values: Row) -> str:
    """Update the last row by an INSERT that conflicts with it: what holds here holds for UPDATE."""
    table, key = target.name(subject.table), subject.key.name
    names = ", ".join(column.name for column in subject.table.c)
    changes = ", ".join(f"{name} = %s" for name in values)
    statement = (
        f"INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE "
        f"SELECT {names} FROM {table} ORDER BY {key} DESC LIMIT 1 ON CONFLICT ({key}) DO UPDATE SET {changes}"
    )
    return _execute(target, statement, values)


def _execute(target: Target, statement: str, values: Row) -> str:
    """Return the name of the CHECK that refused the statement, another error, or that it was accepted."""
    try:
        with target.plain.transaction():
            target.plain.execute(statement.encode(), list(values.values()))
    except CheckViolation as error:
        return str(error.diag.constraint_name)
    except Error as error:
        return f"{error.sqlstate} {error}"
    return "it was accepted"
