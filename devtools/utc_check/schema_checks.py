"""What does not go through a table: sessions, requests, what the API declares, and the columns' types."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, Engine, text

from backend.models.models import Base
from backend.utc import UtcField, lint_catalog, lint_metadata
from devtools.utc_check.cases import ACCEPTED_TEXTS, REFUSED_JSON, REFUSED_TEXTS
from devtools.utc_check.paths import driver, is_canonical, is_utc
from devtools.utc_check.proof_report import Report
from devtools.utc_check.subjects import Target

PINNED = ("UTC", "ISO, MDY")
Seen = frozenset[str]
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


def check_grammar(report: Report) -> None:
    """Parse texts as a request's field does, and render them as a response's."""
    field = TypeAdapter(UtcField)
    for sent, microseconds in ACCEPTED_TEXTS.items():
        try:
            at: Any = field.validate_python(sent)
            ok, shown = is_utc(at, microseconds), field.dump_python(at, mode="json")
        except ValidationError as error:
            ok, shown = False, error.errors()[0]["msg"]
        report.check("grammar/accepted", "a request", sent, ok=ok, seen=shown)
        report.check("grammar/response", "a response", sent, ok=is_canonical(shown, microseconds), seen=shown)
    refused = [(sent, words) for words, texts in REFUSED_TEXTS.items() for sent in texts]
    for value, words in [*refused, *((value, "send an RFC 3339 date-time") for value in REFUSED_JSON)]:
        try:
            seen = f"accepted as {field.validate_python(value)}"
        except ValidationError as error:
            seen = error.errors()[0]["msg"]
        report.check("grammar/refused", "a request", repr(value), ok=words in seen, seen=seen)


def check_openapi(app: FastAPI, report: Report) -> None:
    """Find the parameters and fields of the API that are times and not `UtcField`."""
    schema = app.openapi()
    adapter: TypeAdapter[Any] = TypeAdapter(UtcField)
    sent, shown = (adapter.json_schema(mode=mode)["pattern"] for mode in ("validation", "serialization"))
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            request = [operation.get("parameters"), operation.get("requestBody")]
            for node, pattern, verb in ((request, sent, "takes"), (operation["responses"], shown, "shows")):
                for name, found in _times(schema, node, ""):
                    seen = f"{method.upper()} {path} {verb} a bare {found['format']}"
                    report.check("openapi/time", name, path, ok=found.get("pattern") == pattern, seen=seen)


def _times(schema: Any, node: Any, name: str, seen: Seen = frozenset()) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield every date, time and date-time below this node of JSON, with its name, and follow references."""
    if isinstance(node, dict):
        reference = node.get("$ref", "").rpartition("/")[2]
        if reference and reference not in seen:
            yield from _times(schema, schema["components"]["schemas"][reference], name, seen | {reference})
        if node.get("format") in ("date-time", "date", "time"):
            yield name, node
        for key, part in node.items():
            yield from _times(schema, part, key, seen)
    elif isinstance(node, list):
        for part in node:
            yield from _times(schema, part, name, seen)


def check_columns(connection: Connection, schema: str, report: Report) -> None:
    """Lint the models, and the tables that the migrations created."""
    models, tables = lint_metadata(Base.metadata), lint_catalog(connection, schema)
    for path, found in (("lint/models", models), ("lint/schema", tables)):
        report.check(path, "all columns", "their types", ok=not found, seen="; ".join(map(str, found)))
