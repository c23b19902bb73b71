"""Every way to write crossed with every way to read."""

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from devtools.utc_check.cases import Value, canonical
from devtools.utc_check.paths import MICROSECONDS, READS, UPDATE, WRITES, is_canonical, stored
from devtools.utc_check.proof_report import Report
from devtools.utc_check.subjects import Subject, Target

# What code with a broken defence may raise: a failure of the path, which does not end the proof.
FAULTS = (
    SQLAlchemyError, psycopg.Error, ValueError, TypeError, ArithmeticError, LookupError, AttributeError,
    NotImplementedError,
)  # fmt: skip
HTTP, STORED, UNPINNED, CLOCK = "http", "stored", "unpinned", "clock/new-row"
REQUESTS = 3
NOW = f"SELECT {MICROSECONDS.format('clock_timestamp()')}"

Written = dict[int, tuple[str, str, tuple[int | None, ...]]]
"""By key: the write path, the value, and what PostgreSQL has stored for each column."""


def cross(target: Target, subject: Subject, values: list[Value], report: Report) -> None:
    """Write in every way, compare what is stored, and read it in every way. The rows are deleted afterwards."""
    before, written = _last_key(target, subject), Written()
    for name in (HTTP, *WRITES):
        is_wanted = report.wants(*(f"{name}/{read}" for read in (STORED, *READS)))
        if name == HTTP and subject.creates and (is_wanted or report.wants(CLOCK)):
            written |= _create(target, subject, report)
        elif name != HTTP and is_wanted and (subject.changeable or name != UPDATE):
            written |= _write(target, subject, values, name, report)
    for name in READS:
        wanted = {key: row for key, row in written.items() if report.wants(f"{row[0]}/{name}")}
        if wanted and (subject.listing or name != HTTP):
            _read(target, subject, name, report, wanted)
    with target.engine.begin() as connection:
        connection.execute(subject.table.delete().where(subject.key > before))


def describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _write(target: Target, subject: Subject, values: list[Value], name: str, report: Report) -> Written:
    path, table, before, written = (
        f"{name}/{STORED}",
        subject.table.name,
        _last_key(target, subject),
        Written(),
    )
    try:
        with target.engine.begin() as connection:
            rows = [subject.row(connection, value.held) for value in values]
        with (target.unpinned if name == UNPINNED else target.engine).begin() as connection:
            WRITES[name](connection, target, subject, rows)
    except FAULTS as error:
        report.check(path, table, f"{len(values)} rows", ok=False, seen=describe_error(error))
        return written
    found = stored(target, subject, before)
    report.check(path, table, f"{len(values)} rows", ok=len(found) == len(values), seen=f"{len(found)} rows")
    for (key, *numbers), value in zip(found, values, strict=False):  # keys are in the order of the values
        written[key] = (name, str(value), tuple(numbers))
        for column, number in zip(subject.names, numbers, strict=True):
            if number == value.microseconds or (name, column) == (UPDATE, "updated_at"):
                report.check(path, column, value, ok=True, seen="")
            else:
                expected = f"instead of {_show(value.microseconds)}"
                report.check(path, f"{table}.{column}", value, ok=False, seen=expected, stored=_show(number))
    return written


def _create(target: Target, subject: Subject, report: Report) -> Written:
    """Have the API create rows, with timestamps by the database's clock."""
    path, written = f"{HTTP}/{STORED}", Written()
    for _ in range(REQUESTS):
        before, began = _last_key(target, subject), _number(target, NOW)
        with target.engine.begin() as connection:
            body = {name: make(connection) for name, make in subject.unique.items()}
        response = target.client.post(subject.listing, json=body)
        ended, found = _number(target, NOW), stored(target, subject, before)
        if len(found) != 1:
            seen = f"{response.status_code} {response.text[:200]}"
            report.check(path, subject.table.name, "POST", ok=False, seen=seen)
            continue
        ((key, *numbers),) = found
        written[key] = (HTTP, "POST", tuple(numbers))
        report.check(CLOCK, subject.table.name, "POST", ok=len({*numbers}) == 1, seen=numbers)
        for column, number in zip(subject.names, numbers, strict=True):
            seen = response.json().get(column)
            ok = began <= number <= ended and is_canonical(seen, number)
            report.check(
                path, f"{subject.table.name}.{column}", "POST", ok=ok, seen=seen, stored=_show(number)
            )
    return written


def _read(target: Target, subject: Subject, name: str, report: Report, missing: Written) -> None:
    reason, after = "no row", min(missing) - 1
    try:
        with (target.unpinned if name == UNPINNED else target.engine).begin() as connection:
            if READS[name].set_local:
                connection.execute(text("SELECT set_config('timezone', :zone, true)"), {"zone": target.zone})
            for key, *parts in READS[name].rows(connection, target, subject, after):
                if key in missing:
                    write, value, numbers = missing.pop(key)
                    for column, seen, number in zip(subject.names, parts, numbers, strict=True):
                        if seen is None if number is None else READS[name].shows(seen, number):
                            report.checks[f"{write}/{name}"] += 1
                        else:
                            where, now = f"{subject.table.name}.{column}", _show(number)
                            report.check(f"{write}/{name}", where, value, ok=False, seen=seen, stored=now)
    except FAULTS as error:
        reason = describe_error(error)
    # An error stopped the read of all rows that were still to come.
    for write, value, numbers in missing.values():
        table, now = subject.table.name, _show(numbers[0])
        report.check(f"{write}/{name}", table, value, ok=False, seen=reason, stored=now)


def _show(microseconds: int | None) -> str:
    try:
        return "null" if microseconds is None else f"{microseconds} ({canonical(microseconds)})"
    except OverflowError:
        return str(microseconds)


def _last_key(target: Target, subject: Subject) -> int:
    return _number(target, f"SELECT coalesce(max({subject.key.name}), 0) FROM {target.name(subject.table)}")


def _number(target: Target, query: str) -> int:
    return int(target.plain.execute(query.encode()).fetchall()[0][0])
