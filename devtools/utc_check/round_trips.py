"""Write timestamps in every way, and read them back in every way."""

from sqlalchemy import text

from devtools.utc_check.cases import Value, show
from devtools.utc_check.proof_report import HTTP, STORED, Report, describe_error
from devtools.utc_check.sandbox_schema import MICROSECONDS, Subject
from devtools.utc_check.writers_and_readers import READS, UPDATE, WRITES, is_canonical

UNPINNED, CLOCK = "unpinned", "clock/new-row"
NOW = f"SELECT {MICROSECONDS.format('clock_timestamp()')}"

Written = dict[int, tuple[str, str, tuple[int | None, ...]]]
"""By key: the write path, the value, and the microseconds that PostgreSQL has stored for each column."""


def cross(subject: Subject, values: list[Value], report: Report) -> None:
    """Write in every way, compare what is stored, and read it in every way. The rows are deleted afterwards."""
    before, written, table = subject.last_key(), Written(), subject.table.name
    for name in (HTTP, *WRITES):
        is_wanted = report.wants(*(f"{name}/{read}" for read in (STORED, *READS)))
        with report.continued(f"{name}/{STORED}", table):
            if name == HTTP and subject.listing and (is_wanted or report.wants(CLOCK)):
                written |= _create(subject, report)
            elif name != HTTP and is_wanted and (subject.changeable or name != UPDATE):
                written |= _write(subject, values, name, report)
    for name in READS:
        wanted = {key: row for key, row in written.items() if report.wants(f"{row[0]}/{name}")}
        if wanted and (subject.listing or name != HTTP):
            _read(subject, name, report, wanted)
    with subject.target.engine.begin() as connection:
        connection.execute(subject.table.delete().where(subject.key > before))


def _write(subject: Subject, values: list[Value], name: str, report: Report) -> Written:
    path, table, before, written = f"{name}/{STORED}", subject.table.name, subject.last_key(), Written()
    engine = subject.target.unpinned if name == UNPINNED else subject.target.engine
    with engine.begin() as connection:
        WRITES[name](connection, subject, [subject.row(value.held) for value in values])
    # The keys are in the order of the values.
    for (key, *numbers), value in zip(subject.stored(before), values, strict=True):
        written[key] = (name, str(value), tuple(numbers))
        for column, number in zip(subject.names, numbers, strict=True):
            ok = number == value.microseconds or (name, column) == (UPDATE, "updated_at")
            seen = f"instead of {show(value.microseconds)}"
            report.check(path, f"{table}.{column}", value, ok=ok, seen=seen, stored=number)
    return written


def _create(subject: Subject, report: Report) -> Written:
    """Let the API create a row, whose timestamps come from the database's clock."""
    path, table = f"{HTTP}/{STORED}", subject.table.name
    before, began = subject.last_key(), subject.number(NOW)
    response = subject.target.client.post(subject.listing, json=subject.fixed)
    created, ended = response.raise_for_status().json(), subject.number(NOW)
    ((key, *numbers),) = subject.stored(before)
    report.check(CLOCK, table, "POST", ok=len({*numbers}) == 1, seen=numbers)
    for column, number in zip(subject.names, numbers, strict=True):
        seen = created.get(column)
        ok = began <= number <= ended and is_canonical(seen, number)
        report.check(path, f"{table}.{column}", "POST", ok=ok, seen=seen, stored=number)
    return {key: (HTTP, "POST", tuple(numbers))}


def _read(subject: Subject, name: str, report: Report, missing: Written) -> None:
    reason, after, shows = "no row", min(missing) - 1, READS[name].shows
    labels = [f"{subject.table.name}.{column}" for column in subject.names]
    engine = subject.target.unpinned if name == UNPINNED else subject.target.engine
    try:
        with engine.begin() as connection:
            # A session that was moved to another zone in the same transaction reads the same instants.
            connection.execute(text(f"SET LOCAL timezone TO '{subject.target.zone}'"))
            for key, *parts in READS[name].rows(connection, subject, after):
                if key in missing:
                    write, value, numbers = missing.pop(key)
                    for label, seen, number in zip(labels, parts, numbers, strict=True):
                        ok = seen is None if number is None else shows(seen, number)
                        report.check(f"{write}/{name}", label, value, ok=ok, seen=seen, stored=number)
    except Exception as error:  # noqa: BLE001 - as in `Report.continued`
        reason = describe_error(error)
    # An error stopped the read of all rows that were still to come.
    for write, value, numbers in missing.values():
        report.check(f"{write}/{name}", labels[0], value, ok=False, seen=reason, stored=numbers[0])
