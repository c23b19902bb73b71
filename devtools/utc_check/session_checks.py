"""Whether a session of the engine is in UTC, stays there, and is mended where somebody moved it."""

from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.pool import PoolProxiedConnection

from devtools.utc_check.report import Report
from devtools.utc_check.subjects import Round
from devtools.utc_check.writes import raw_connection

PINNED = ("UTC", "ISO")
# What follows the session's zone in SQL, as whole microseconds: in UTC all of these come out as they stand.
_FOLLOWS_THE_ZONE = text("""
SELECT (extract(epoch FROM timestamptz '2024-07-01 00:00:00') * 1000000)::int8 = 1719792000000000
   AND (timestamptz '2024-06-30 23:59:59.999999+00')::date = date '2024-06-30'
   AND extract(epoch FROM date_trunc('day', timestamptz '2024-11-03 23:30:00+00')) = 1730592000
   AND extract(epoch FROM timestamptz '2024-11-02 12:00:00+00' + interval '1 day') = 1730635200
   AND to_jsonb(timestamptz '2024-07-01 00:00:00+00') = '"2024-07-01T00:00:00+00:00"'
""")


def check_sessions(round_: Round, report: Report) -> None:
    """Look at new sessions, at those that rolled back, and at those that a user of the pool moved."""
    # A new one: a transaction that committed would have made a SET last that the first rollback undoes.
    with round_.ground.twin() as engine, engine.connect() as connection:
        _look(report, "session/new", connection, round_.zone)
        # Begun, or there would be nothing to roll back.
        connection.begin().rollback()
        _look(report, "session/rolled-back", connection, round_.zone)
        follows = connection.scalar(_FOLLOWS_THE_ZONE)
        report.check(
            "session/sql", "dates, days and JSON in SQL", round_.zone, holds=follows is True, seen="a shift"
        )
    for name, leak in (
        ("session/leaked-zone", f"SET TIME ZONE '{round_.zone}'"),
        ("session/leaked-style", "SET datestyle = 'SQL, DMY'"),
    ):
        _leak(round_.engine, report, name, leak)
    with round_.ground.client() as client:
        # Were it in UTC by itself, nothing above would have been put to the test.
        seen = _settings(client)
        report.check(
            "session/adversary", "the session of a client that is not pinned", round_.zone,
            holds=seen[0] == round_.zone and seen[1] != PINNED[1], seen=", ".join(seen),
        )  # fmt: skip


def _leak(engine: Engine, report: Report, name: str, leak: str) -> None:
    """Commit a setting, give the connection back, and look at what its next user has."""
    moved = engine.raw_connection()
    raw = _driver(moved)
    raw.execute(leak)
    raw.commit()
    backend = raw.info.backend_pid
    others: list[PoolProxiedConnection] = []
    moved.close()
    try:
        # The pool may have others at hand: take them all until this one comes.
        while True:
            proxy = engine.raw_connection()
            others.append(proxy)
            if _driver(proxy).info.backend_pid == backend or len(others) > 20:  # noqa: PLR2004 - more than a pool has
                break
        raw = _driver(others[-1])
        seen = _settings(raw)
        report.check(
            name, "the session of the pool's next user", leak, holds=seen == PINNED, seen=", ".join(seen)
        )
    finally:
        for proxy in others:
            proxy.close()


def _look(report: Report, path: str, connection: Connection, zone: str) -> None:
    seen = _settings(raw_connection(connection))
    report.check(path, "the session's zone and DateStyle", zone, holds=seen == PINNED, seen=", ".join(seen))


def _settings(raw: Any) -> tuple[str, str]:  # noqa: ANN401 - likewise
    return str(_one(raw, "SHOW timezone")), str(_one(raw, "SHOW datestyle")).partition(",")[0]


def _driver(proxy: PoolProxiedConnection) -> Any:  # noqa: ANN401 - psycopg's, whatever its rows are
    return proxy.driver_connection


def _one(raw: Any, query: str) -> object:  # noqa: ANN401 - likewise
    return raw.execute(query).fetchone()[0]
