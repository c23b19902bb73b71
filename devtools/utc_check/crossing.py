"""Every way to write crossed with every way to read."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.exc import SQLAlchemyError

from devtools.utc_check.reads import READS, Read, describe, is_canonical, stored
from devtools.utc_check.report import Report
from devtools.utc_check.subjects import Resource, Round, Subject
from devtools.utc_check.values import Value, canonical
from devtools.utc_check.writes import WRITES, Write

FAULTS = (
    SQLAlchemyError,
    psycopg.Error,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    NotImplementedError,  # psycopg's, of a DateStyle that it cannot read
)
"""What a broken defence may raise in mid-proof: it is a finding and no end of the proof."""

STORED, HTTP, UPDATE = "stored", "http", "update"
REQUESTS = 3

Expected = dict[int, tuple[str, str, tuple[int | None, ...]]]
"""By key: who wrote the row, the value, and what PostgreSQL has of each instant."""


@contextmanager
def finding(report: Report, path: str) -> Iterator[None]:
    """Enter what is raised within as a failure of this path."""
    try:
        yield
    except FAULTS as error:
        report.check(path, "the proof itself", "it stopped here", holds=False, seen=_one_line(error))


@dataclass
class _Crossing:
    """One subject in one round."""

    round: Round
    subject: Subject
    report: Report
    rows: Expected
    last: int


def cross(round_: Round, subject: Subject, report: Report) -> None:
    """Write by every way, ask the oracle what is stored, and read it by every way."""
    crossing = _Crossing(round_, subject, report, {}, _last_key(round_, subject))
    before = crossing.last
    for name, write in WRITES.items():
        if _is_wanted(report, name) and (subject.free or name != UPDATE):
            _write(crossing, name, write)
    if subject.resource is not None and _is_wanted(report, HTTP):
        _create(crossing, subject.resource)
    for name, read in READS.items():
        wanted = {key: row for key, row in crossing.rows.items() if report.wants(f"{row[0]}/{name}")}
        if wanted and not (name == HTTP and subject.resource is None):
            _read(crossing, name, read, wanted, before)
    _forget(round_, subject, before)


def show(microseconds: int | None) -> str:
    """Say an instant as the oracle has it, and as a person reads it."""
    if microseconds is None:
        return "null"
    try:
        return f"{microseconds} ({canonical(microseconds)})"
    except OverflowError:
        return str(microseconds)


def _is_wanted(report: Report, write: str) -> bool:
    return any(report.wants(f"{write}/{read}") for read in (STORED, *READS))


def _write(crossing: _Crossing, name: str, write: Write) -> None:
    values = crossing.round.values
    try:
        _try(crossing, write, values)
    except FAULTS:
        # Again, one by one, to learn which of them it was.
        for value in values:
            try:
                _try(crossing, write, [value])
            except FAULTS as error:
                path = f"{name}/{STORED}"
                crossing.report.check(
                    path, crossing.subject.table.name, value, holds=False, seen=_one_line(error)
                )
            else:
                _enter(crossing, name, [value])
    else:
        _enter(crossing, name, values)


def _try(crossing: _Crossing, write: Write, values: list[Value]) -> None:
    # A write that failed may have left rows.
    crossing.last = _last_key(crossing.round, crossing.subject)
    with crossing.round.engine.begin() as connection:
        rows = crossing.subject.rows(connection, [value.held for value in values])
    write(crossing.round, crossing.subject, rows)


def _enter(crossing: _Crossing, name: str, values: list[Value]) -> None:
    """Compare what was written with what is stored: the rows come in the order of their keys."""
    report, subject, path = crossing.report, crossing.subject, f"{name}/{STORED}"
    moving = subject.moving if name == UPDATE else set()
    found = stored(crossing.round, subject, crossing.last)
    if len(found) != len(values):
        report.check(path, subject.table.name, f"{len(values)} rows", holds=False, seen=f"{len(found)} rows")
    for (key, *instants), value in zip(found, values, strict=False):
        crossing.rows[key] = (name, str(value), tuple(instants))
        crossing.last = key
        report.count(path, len(instants))
        for column, microseconds in zip(subject.instants, instants, strict=True):
            if microseconds != value.microseconds and column.name not in moving:
                want = f"not {show(value.microseconds)}"
                report.fail(path, str(column), value, stored=show(microseconds), seen=want)


def _create(crossing: _Crossing, resource: Resource) -> None:
    """Have the API make and change rows, whose time is the database's clock."""
    report, subject, round_ = crossing.report, crossing.subject, crossing.round
    path = f"{HTTP}/{STORED}"
    for _ in range(REQUESTS):
        with round_.engine.begin() as connection:
            target, body = resource.create(connection)
        began = _clock(round_)
        answers = [round_.client.send("POST", target, body)]
        if answers[0].status == 201:  # noqa: PLR2004 - HTTP's Created
            answers.append(round_.client.send("PATCH", *resource.change(answers[0].json())))
        ended = _clock(round_)
        found = stored(round_, subject, crossing.last)
        if len(found) != 1 or answers[-1].status != 200:  # noqa: PLR2004 - HTTP's OK
            seen = f"{answers[-1].status} {answers[-1].text[:200]}"
            report.check(path, subject.table.name, f"POST and PATCH {target}", holds=False, seen=seen)
            continue
        key, *instants = found[0]
        crossing.rows[key] = (HTTP, f"POST and PATCH {target}", tuple(instants))
        crossing.last = key
        _check_answers(crossing, [answer.json() for answer in answers], instants, (began, ended))


def _check_answers(
    crossing: _Crossing, answers: list[Any], instants: list[int], window: tuple[int, int]
) -> None:
    report, subject, path = crossing.report, crossing.subject, f"{HTTP}/{STORED}"
    made, changed = answers
    for column, microseconds in zip(subject.instants, instants, strict=True):
        seen, holds = changed.get(column.name), window[0] <= microseconds <= window[1]
        report.count(path)
        if not (holds and is_canonical(seen, microseconds)):
            report.fail(path, str(column), "PostgreSQL's clock", stored=show(microseconds), seen=seen)
    report.check(
        "clock/fresh-row", f"{subject.table.name}.updated_at", "a row just made",
        holds=made["created_at"] == made["updated_at"], seen=f"{made['updated_at']}, created {made['created_at']}",
    )  # fmt: skip
    report.check(
        "clock/changed-row", f"{subject.table.name}.updated_at", "a row just changed",
        holds=made["created_at"] == changed["created_at"] and made["updated_at"] < changed["updated_at"],
        seen=f"{changed['updated_at']} after {made['updated_at']}",
    )  # fmt: skip


def _read(crossing: _Crossing, name: str, read: Read, wanted: Expected, before: int) -> None:
    report, subject = crossing.report, crossing.subject
    checks: Counter[str] = Counter()
    missing = dict(wanted)
    try:
        for key, *seen in read.read(crossing.round, subject, before):
            row = missing.pop(key, None)
            if row is None:
                continue
            write, value, instants = row
            checks[f"{write}/{name}"] += len(instants)
            for column, what, microseconds in zip(subject.instants, seen, instants, strict=True):
                if not (what is None if microseconds is None else read.shows(what, microseconds)):
                    report.fail(
                        f"{write}/{name}", str(column), value, stored=show(microseconds), seen=describe(what)
                    )
    except FAULTS as error:
        reason = _one_line(error)
    else:
        reason = "no row"
    # What stopped a read stopped it for all that it had not come to.
    for write, value, instants in missing.values():
        checks[f"{write}/{name}"] += len(instants)
        report.fail(f"{write}/{name}", subject.table.name, value, stored=show(instants[0]), seen=reason)
    for path, number in checks.items():
        report.count(path, number)


def _last_key(round_: Round, subject: Subject) -> int:
    query = sql.SQL("SELECT coalesce(max({}), 0) FROM {}").format(
        sql.Identifier(subject.key.name), round_.ground.table(subject.table)
    )
    ((last,),) = round_.ground.oracle.execute(query).fetchall()
    return int(last)


def _forget(round_: Round, subject: Subject, before: int) -> None:
    """Remove the round's rows, so that lists stay short."""
    with round_.engine.begin() as connection:
        connection.execute(subject.table.delete().where(subject.key > before))


def _clock(round_: Round) -> int:
    query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8"
    row = round_.ground.oracle.execute(query).fetchone()
    return int(row[0]) if row else 0


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
