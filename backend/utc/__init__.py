"""Timestamps that cannot be wrong: from the text of a request to the column in the database, and back.

Timestamps in local zones are a trap: Python ignores `fold` when two values share a tzinfo, local days have 23 or 25
hours, and PostgreSQL renders timestamps in the session's zone. So every value here is an aware `datetime` whose tzinfo
*is* `timezone.utc`, every text is `YYYY-MM-DDTHH:MM:SS.ffffffZ`, and a value without an offset is refused where it
enters.

- `ensure_utc`, `format_utc`, `parse_utc`: convert values, and format and parse their text (RFC 3339).
- `UtcDateTime`: the SQLAlchemy type; map `datetime` to it once, in `type_annotation_map`.
- `UtcField`: the Pydantic type for requests, responses and query parameters.
- `pin_utc`: keeps every session of an engine in UTC, regardless of the server, the role or the pool. Its driver loads
  timestamptz as UTC and refuses to send naive datetimes.
- `guard_models`: attributes convert their values to UTC, columns have a range, and a trigger maintains `created_at`
  and `updated_at`.
- `lint_metadata`, `lint_catalog`, `stray_settings`: find columns and session settings that could give a wrong time.
- `KEEP_TIMESTAMPS_FUNCTION`, `keep_timestamps_trigger`: the DDL of the trigger, which serves every client.

`nox -s utc_check` proves on any database that all of this works together. This package imports nothing from the rest
of the project.
"""

from backend.utc.column import UtcDateTime
from backend.utc.field import UtcField
from backend.utc.instants import ensure_utc, format_utc, parse_utc
from backend.utc.model_guards import guard_models
from backend.utc.session import pin_utc, stray_settings
from backend.utc.triggers import KEEP_TIMESTAMPS_FUNCTION, keep_timestamps_trigger
from backend.utc.unsafe_columns import lint_catalog, lint_metadata

__all__ = [
    "KEEP_TIMESTAMPS_FUNCTION",
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
    "stray_settings",
]
