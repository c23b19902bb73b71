"""What is so on this server: settings that move other clients' sessions, columns of others, and its clock."""

import time
from typing import Any

import psycopg
from sqlalchemy import Connection

from backend.utc.lint import lint_catalog
from devtools.utc_check.report import Observation, Report

# A clock that is further off than this makes other records of the same moment disagree.
SKEW_SECONDS = 1.0
PROBES = 7


def observe(raw: psycopg.Connection[Any], connection: Connection, own_schema: str, report: Report) -> None:
    """Enter what may move or mislead a client that is not pinned."""
    version = raw.info.parameter_status("server_version") or "?"
    report.observations.append(Observation("server", f"PostgreSQL {version.partition(' ')[0]}"))
    _observe_settings(raw, report)
    for finding in lint_catalog(connection):
        if not finding.table.startswith(f"{own_schema}."):
            report.observations.append(Observation("column", str(finding), is_remarkable=True))
    _observe_clock(raw, report)


def _observe_settings(raw: psycopg.Connection[Any], report: Report) -> None:
    for name, setting, source in raw.execute(
        "SELECT name, setting, source FROM pg_settings WHERE name IN ('TimeZone', 'DateStyle') ORDER BY name DESC"
    ):
        moved = setting not in ("UTC", "Etc/UTC", "GMT", "ISO, MDY", "ISO, DMY", "ISO, YMD")
        text = f"{name} is {setting} (from: {source})"
        report.observations.append(Observation("a session that nobody pins", text, is_remarkable=moved))
    for database, role, setting in raw.execute("""
        SELECT coalesce(d.datname, 'every database'), coalesce(r.rolname, 'every role'), s.setting
        FROM pg_db_role_setting AS all_of
        LEFT JOIN pg_database AS d ON d.oid = setdatabase
        LEFT JOIN pg_roles AS r ON r.oid = setrole
        CROSS JOIN LATERAL unnest(setconfig) AS s (setting)
        WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
          AND (s.setting ILIKE 'timezone=%' OR s.setting ILIKE 'datestyle=%')
        ORDER BY 1, 2, 3
    """):
        text = f"{setting} for {role} in {database}"
        report.observations.append(Observation("a setting that moves sessions", text, is_remarkable=True))


def _observe_clock(raw: psycopg.Connection[Any], report: Report) -> None:
    """Compare the clocks by the quickest of some probes: its middle is when the server answered, give or take half."""
    best, skew = float("inf"), 0.0
    for _ in range(PROBES):
        began = time.time()
        row = raw.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8").fetchone()
        took = time.time() - began
        if row and took < best:
            best, skew = took, row[0] / 1e6 - (began + took / 2)
    side = "ahead" if skew > 0 else "behind"
    text = f"the server's is {abs(skew) * 1000:.1f} ms {side}, give or take {best * 500:.1f} ms"
    report.observations.append(Observation("clocks", text, is_remarkable=abs(skew) > SKEW_SECONDS))
