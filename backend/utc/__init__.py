"""Instants, and nothing but instants: from the caller's text to the database's column and back.

A timestamp with a zone of its own is a trap: Python ignores `fold` when two values share a tzinfo, local days
have 23 or 25 hours, and PostgreSQL renders in whatever zone the session happens to have. So every value here
is an aware `datetime` whose tzinfo *is* `timezone.utc`, every text is `YYYY-MM-DDTHH:MM:SS.ffffffZ`, and
whatever has no offset is refused where it enters.

- `ensure_utc`, `format_utc`, `parse_utc`: values and their one text (RFC 3339).
- `UtcDateTime`: the SQLAlchemy type; map `datetime` to it once, in `type_annotation_map`.
- `UtcField`: the Pydantic type for requests, responses and query parameters.
- `pin_utc`: holds every session of an engine at UTC, whatever server, role or pool say.
- `KEEP_TIMESTAMPS_FUNCTION`, `keep_timestamps_trigger`: the DDL by which PostgreSQL itself keeps `created_at`
  as it was and moves `updated_at` forward, for every client alike.

This package imports nothing of the project around it.
"""

from backend.utc.column import UtcDateTime
from backend.utc.field import UtcField
from backend.utc.instants import ensure_utc, format_utc, parse_utc
from backend.utc.session import pin_utc
from backend.utc.triggers import KEEP_TIMESTAMPS_FUNCTION, keep_timestamps_trigger

__all__ = [
    "KEEP_TIMESTAMPS_FUNCTION",
    "UtcDateTime",
    "UtcField",
    "ensure_utc",
    "format_utc",
    "keep_timestamps_trigger",
    "parse_utc",
    "pin_utc",
]
