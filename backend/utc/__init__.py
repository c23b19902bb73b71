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
- `verify`: proves on any database that all of this holds together, and returns a `Report` (see `devtools.utc_check`).

What goes wrong without it, where the defence is, and the tests that fail when it is taken away:

    Two sides of a fold load as equal (loaders)
        test_two_sides_of_a_fold_load_apart_and_sort_as_postgresql_sorts
    The other side of a fold is not seen as a change (guard)
        test_other_side_of_a_fold_is_a_change_and_is_sent
    A day later is 23 or 25 hours later (loaders)
        test_a_day_added_over_a_change_is_24_hours
    Server, database, role or PGTZ choose the zone (session)
        test_zone_of_pgtz_loses
        test_zone_of_the_database_loses
        test_zone_of_the_role_in_the_database_loses
    A committed SET TIME ZONE reaches the pool's next user; one in a hook is rolled back (session)
        test_committed_setting_does_not_leak_to_the_pools_next_user
        test_pin_outlives_the_pools_rollback
    SET LOCAL changes what is loaded (loaders)
        test_loaded_values_are_utc_in_a_moved_session
    Naive datetimes, dates and texts are stored in the session's zone (guard, column, dumpers)
        test_attribute_refuses_what_is_no_instant_by_the_columns_name
        test_what_is_no_instant_is_refused_before_it_is_sent
        test_what_is_no_instant_is_refused_as_a_parameter
    NaT is stored, nanoseconds vanish, a tzinfo has no offset (dumpers)
        test_what_is_no_instant_is_refused_in_copy
    Infinity, years before Christ and the year 10000 break every later SELECT (guard)
        test_instant_that_not_every_zone_can_show_is_refused
    The first hours of the year 1 in an eastern zone are a 500 (field)
        test_body_that_is_no_instant_is_a_422_that_tells_what_to_send
    created_at and updated_at of a fresh row come from two clocks (triggers)
        test_fresh_row_has_one_instant_of_the_databases_clock
    Raw SQL and ON CONFLICT leave updated_at as it was (triggers)
        test_upsert_moves_updated_at
        test_created_at_cannot_be_changed
    A column has no zone, or rounds (lint)
        test_bare_annotation_of_an_unmapped_base_is_found
        test_catalog_tells_every_column_that_could_be_wrong_and_no_other
    A migration to timestamptz moves every instant (session)
        test_timestamp_that_a_migration_makes_timestamptz_keeps_its_time
    Numbers and dates are read as times (instants)
        test_other_text_is_refused_and_told_what_to_send
    A seventh fractional digit is cut here and rounded there (instants)
        test_field_refuses_the_same_texts_with_a_reason
    An offset's seconds are lost (instants)
        test_offset_with_seconds_is_kept_to_the_second
    Responses differ in form and width (field)
        test_every_response_of_the_api_shows_27_characters
        test_every_endpoint_declares_its_times
    A plus in a query arrives as a space (instants)
        test_plus_that_arrives_as_a_space_is_told_to_be_escaped
    A list's cursor is cut to milliseconds and loses rows (it holds the key and no time)
        test_walk_shows_every_row_once_in_order
    Days, parts, JSON and intervals follow the session (session)
        test_what_the_server_computes_follows_utc_whatever_the_zone_of_the_connection
    A zone that Python does not know is taken for UTC (loaders)
        test_zone_that_python_does_not_know_changes_nothing
    A frozen clock in Python does not freeze PostgreSQL's (tests pass explicit values)
        test_updated_at_moves_forward_when_the_clock_was_set_back
    A pooler hands on another client's session (session)
        test_session_that_another_client_shares_is_repaired_at_checkout

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
    width of responses               instants._WHOLE_SECOND, the fraction of whole seconds

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
