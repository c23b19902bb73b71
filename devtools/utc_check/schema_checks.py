"""What does not go through a table: sessions, what the API declares, and the columns' types."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, text

from backend.models.models import Base
from backend.utc import UtcField, lint_catalog, lint_metadata
from devtools.utc_check.paths import driver
from devtools.utc_check.proof_report import Report
from devtools.utc_check.subjects import Target

PINNED = ("UTC", "ISO, MDY")
# SQL that follows the session's zone. In UTC all of it is true.
FOLLOWS_THE_ZONE = text("""
SELECT (extract(epoch FROM timestamptz '2024-07-01 00:00:00') * 1000000)::int8 = 1719792000000000
   AND (timestamptz '2024-06-30 23:59:59.999999+00')::date = date '2024-06-30'
   AND extract(epoch FROM date_trunc('day', timestamptz '2024-11-03 23:30:00+00')) = 1730592000
   AND extract(epoch FROM timestamptz '2024-11-02 12:00:00+00' + interval '1 day') = 1730635200
   AND to_jsonb(timestamptz '2024-07-01 00:00:00+00') = '"2024-07-01T00:00:00+00:00"'
""")


def settings(raw: Any) -> tuple[str, str]:  # noqa: ANN401 - psycopg's, whatever its rows are
    zone, style = (raw.execute(f"SHOW {name}".encode()).fetchone()[0] for name in ("timezone", "datestyle"))
    return zone, style


def check_sessions(target: Target, new: Engine, report: Report) -> None:
    """Check a session of an engine that has no connection yet: at first, after a rollback, and after committed SETs."""

    def check(path: str, connection: Connection) -> None:
        seen = settings(driver(connection))
        report.check(f"session/{path}", "the session", target.zone, ok=seen == PINNED, seen=", ".join(seen))

    # A commit would keep a SET that the rollbacks of a pool undo.
    with new.connect() as connection:
        check("new", connection)
        connection.begin().rollback()
        check("rolled-back", connection)
        ok = connection.scalar(FOLLOWS_THE_ZONE) is True
        report.check("session/sql", "dates, days and JSON in SQL", target.zone, ok=ok, seen="another zone's")
    for path, leak in (
        ("leaked-zone", f"TIME ZONE '{target.zone}'"),
        ("leaked-style", "datestyle = 'SQL, DMY'"),
    ):
        with new.begin() as connection:
            connection.exec_driver_sql(f"SET {leak}")
        with new.connect() as connection:
            check(path, connection)
    # If this session were in UTC too, nothing above would have been put to the test.
    seen = settings(target.plain)
    ok = seen[0] == target.zone and not seen[1].startswith("ISO")
    report.check("session/unpinned", "a session that nobody pins", target.zone, ok=ok, seen=", ".join(seen))


def check_openapi(app: FastAPI, report: Report) -> None:
    """Find the times that the API takes or shows and that are not `UtcField`."""
    adapter: TypeAdapter[Any] = TypeAdapter(UtcField)
    patterns = {adapter.json_schema(mode=mode)["pattern"] for mode in ("validation", "serialization")}
    for place, node in _times(app.openapi(), ""):
        ok = node.get("pattern") in patterns
        report.check("openapi/time", place, "its schema", ok=ok, seen=f"a bare {node['format']}")


def _times(node: Any, place: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON
    """Yield every date, time and date-time in this JSON, with its place."""
    if isinstance(node, dict) and node.get("format") in ("date-time", "date", "time"):
        yield place, node
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in parts:
        yield from _times(part, f"{place}/{key}")


def check_columns(connection: Connection, schema: str, report: Report) -> None:
    """Lint the models, and the tables that the migrations created."""
    models, tables = lint_metadata(Base.metadata), lint_catalog(connection, schema)
    for path, found in (("lint/models", models), ("lint/schema", tables)):
        report.check(path, "all columns", "their types", ok=not found, seen="; ".join(map(str, found)))
