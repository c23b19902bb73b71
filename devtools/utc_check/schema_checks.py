"""What callers are told and may send, and what columns there are."""

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, MetaData

from backend.utc.field import UtcField
from backend.utc.lint import lint_catalog, lint_metadata
from devtools.utc_check.application import Client
from devtools.utc_check.reads import is_instant
from devtools.utc_check.report import Report

TAKEN = {
    "2024-01-31T12:00:00Z": 1_706_702_400_000_000,
    "2024-01-31t12:00:00.1z": 1_706_702_400_100_000,
    "2024-01-31T12:00:00.123456+05:45": 1_706_681_700_123_456,
    "2024-01-31T12:00:00-00:00": 1_706_702_400_000_000,
    "2024-11-03T01:30:00-04:00": 1_730_611_800_000_000,
    "2024-11-03T01:30:00-05:00": 1_730_615_400_000_000,
}
REFUSED: tuple[object, ...] = (
    "2024-01-31T12:00:00",
    "2024-01-31 12:00:00Z",
    "2024-01-31T12:00Z",
    "2024-01-31",
    "20240131",
    "20240131T120000Z",
    "1700000000",
    1_700_000_000,
    1_700_000_000.5,
    "2024-01-31T12:00:00.1234567Z",
    "2024-01-31T12:00:00,5Z",
    "2024-01-31T12:00:00+0545",
    "2024-01-31T12:00:00+24:00",
    "2024-01-31T12:00:00 05:00",
    "2024-01-31T24:00:00Z",
    "2024-01-31T23:59:60Z",
    "2024-02-30T12:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:00:00-02:00",
    "2024-W05-3T12:00:00Z",
)


_WIDTH = len("YYYY-MM-DDTHH:MM:SS.ffffffZ")


def check_grammar(report: Report) -> None:
    """Try the field of requests on RFC 3339, and on what passes for it elsewhere."""
    field = TypeAdapter(UtcField)
    for text, microseconds in TAKEN.items():
        try:
            seen: Any = field.validate_python(text)
        except ValidationError as error:
            seen = error.errors()[0]["msg"]
        holds = is_instant(seen, microseconds)
        report.check("grammar/taken", "a request's timestamp", text, holds=holds, seen=seen)
        if holds:
            shown = field.dump_python(seen, mode="json")
            report.check(
                "grammar/shown", "a response's timestamp", text, holds=len(shown) == _WIDTH, seen=shown
            )
    for value in REFUSED:
        try:
            seen = f"it was taken, as {field.validate_python(value)}"
        except ValidationError as error:
            # Whatever the refusal is called, it tells what to send instead.
            message = str(error.errors()[0]["msg"])
            seen = None if "send" in message else f"it was refused without help: {message}"
        report.check("grammar/refused", "a request's timestamp", repr(value), holds=seen is None, seen=seen)


def check_openapi(client: Client, report: Report) -> None:
    """Look for fields and parameters that are called a date-time and have not our pattern."""
    document = client.send("GET", "/openapi.json").json()
    for where, schema in _walk(document, ""):
        if schema.get("format") == "date-time":
            holds = schema.get("type") == "string" and "pattern" in schema
            report.check("openapi/date-time", where, "its schema", holds=holds, seen=schema)
        elif where.endswith("_at"):
            report.check("openapi/date-time", where, "its schema", holds=False, seen=schema)


def check_columns(connection: Connection, metadata: MetaData, schema: str, report: Report) -> None:
    """Lint the models, and the tables that the migrations made of them."""
    for path, findings in (
        ("lint/models", lint_metadata(metadata)),
        ("lint/schema", lint_catalog(connection, schema)),
    ):
        report.count(path)
        for finding in findings:
            report.fail(path, f"{finding.table}.{finding.column}", finding.type, seen=finding.advice)


def _walk(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401 - JSON is anything
    """Yield every schema of a property or parameter, with where it stands."""
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, where)
    elif isinstance(node, dict):
        if "type" in node and isinstance(node["type"], str):
            yield where, node
        for name, child in node.items():
            if name not in ("examples", "example", "default"):
                yield from _walk(child, f"{where}/{name}")
