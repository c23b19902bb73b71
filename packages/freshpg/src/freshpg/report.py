"""What the plugin says: of a failed test's database, of a server that died, and of the whole run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from psycopg import conninfo, pq

from .server import Server, database_url, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .run import Run

_CHAIN = 20
"""So many links of an exception's causes are followed; the chain may lead back into itself."""
_MISSING_EXTENSION = frozenset({"58P01", "0A000"})
"""undefined_file and feature_not_supported: a CREATE EXTENSION without its files fails with one of them."""
_EXTENSION_HINT = (
    "If a CREATE EXTENSION failed: the embedded PostgreSQL comes without some extensions (uuid-ossp, pgcrypto, xml2, "
    "sslinfo); --postgres docker has them."
)


def failure_lines(run: Run, server: Server, error: BaseException | None, *, keep: bool) -> list[str]:
    """Return how to open the databases of a failed test, unless the end of the run says it, and what may help."""
    lines = [] if keep else [psql(server, name) for name in run.in_use()]
    if lines:
        lines.append(
            "After the test the database is reset, and at the end of the run it is gone; --keep-database keeps it."
        )
    if server.kind == "embedded" and _MISSING_EXTENSION.intersection(_sqlstates(error)):
        lines.append(_EXTENSION_HINT)
    return lines


def psql(server: Server, database: str) -> str:
    """Return the command that opens a database; without the password if the server was given."""
    url = database_url(server.url, database)
    if server.kind != "given":
        return f"psql {shlex.quote(url)}"
    known = {name: value for name, value in conninfo.conninfo_to_dict(url).items() if "password" not in name}
    return f"psql {shlex.quote(conninfo.make_conninfo('', **known))}"


def death_of(server: Server) -> str | None:
    """Return what became of a server that does not answer any more, on one line; None if it answers."""
    if pq.PGconn.ping(conninfo.make_conninfo(server.url, connect_timeout=5).encode()) != pq.Ping.NO_RESPONSE:
        return None
    death = server.describe_death() or "it does not answer"
    where = f"at {without_password(server.url)}" if server.kind == "given" else server.kind
    return f"PostgreSQL {server.version}, {where}, died during the run: {death}"


def closing_lines(run: Run, server: Server) -> Iterator[str]:
    """Say which server it was, and what is kept on it."""
    yield from server.notes
    kept = run.databases.kept()
    for name, test in kept.items():
        yield f"{psql(server, name)}  # {test}"
    if kept:
        end = server.leave_running()
        yield f"The server keeps running; {end} ends it." if end else "They stay until you drop them."
    boot = f", started in {run.boot_seconds:.2f} s" if server.kind != "given" else ""
    yield f"PostgreSQL {server.version}, {server.kind}{boot}"


def _sqlstates(error: BaseException | None) -> Iterator[str]:
    for _ in range(_CHAIN):
        if error is None:
            return
        # SQLAlchemy's errors have the driver's as `orig`; psycopg and asyncpg name the code `sqlstate`.
        state = getattr(getattr(error, "orig", error), "sqlstate", None)
        if isinstance(state, str):
            yield state
        error = error.__cause__ or error.__context__
