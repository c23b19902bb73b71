"""Instants, and nothing but instants: from the caller's text to the database's column and back.

A timestamp with a zone of its own is a trap: Python ignores `fold` when two values share a tzinfo, local days
have 23 or 25 hours, and PostgreSQL renders in whatever zone the session happens to have. So every value here
is an aware `datetime` whose tzinfo *is* `timezone.utc`, every text is `YYYY-MM-DDTHH:MM:SS.ffffffZ`, and
whatever has no offset is refused where it enters.

- `ensure_utc`, `format_utc`, `parse_utc`: values and their one text (RFC 3339).
- `UtcDateTime`: the SQLAlchemy type; map `datetime` to it once, in `type_annotation_map`.
- `UtcField`: the Pydantic type for requests, responses and query parameters.
- `pin_utc`: holds every session of an engine at UTC, whatever server, role or pool say, and has its driver load
  timestamptz as UTC and send instants alone.
- `guard_models`: attributes normalise what they are given, columns are bounded, a trigger keeps the timestamps.
- `lint_metadata`, `lint_catalog`, `stray_settings`: find columns that could hold or show a wrong time, and what
  moves a session.
- `KEEP_TIMESTAMPS_FUNCTION`, `keep_timestamps_trigger`, `range_condition`: the DDL by which PostgreSQL itself keeps
  `created_at` as it was, moves `updated_at` forward and bounds each timestamp, for every client alike.

Each defence has one name, which is looked up when it is used, so that a test can take it away and see what breaks:

    session pin                      session._pin(connection)
    outside any transaction          session._outside_transaction(connection), a context manager
    check at checkout                session._is_pinned(connection), which answers True where it is away
    loaders                          loaders.register(adapters)
    dumpers                          dumpers.register(adapters)
    binding in SQLAlchemy            column._bind(value), taken up when a statement is first compiled for an engine
    results of engines not pinned    column.UtcDateTime.process_result_value
    normalisation when set           guard._normalise(column, value)
    range of a column                its CHECK, ck_<table>_<column>_range
    kept timestamps                  the trigger keep_timestamps of a table
    grammar of requests              field.parse_utc(text)
    width of responses               field.format_utc(value)

This package imports nothing of the project around it.
"""

from backend.utc.column import UtcDateTime
from backend.utc.field import UtcField
from backend.utc.guard import guard_models, range_condition
from backend.utc.instants import ensure_utc, format_utc, parse_utc
from backend.utc.lint import Finding, lint_catalog, lint_metadata
from backend.utc.session import pin_utc, stray_settings
from backend.utc.triggers import KEEP_TIMESTAMPS_FUNCTION, keep_timestamps_trigger

__all__ = [
    "KEEP_TIMESTAMPS_FUNCTION",
    "Finding",
    "UtcDateTime",
    "UtcField",
    "ensure_utc",
    "format_utc",
    "guard_models",
    "keep_timestamps_trigger",
    "lint_catalog",
    "lint_metadata",
    "parse_utc",
    "pin_utc",
    "range_condition",
    "stray_settings",
]
