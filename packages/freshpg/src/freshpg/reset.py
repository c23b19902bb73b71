"""The end of a test with real commits: in one round trip its rows go and the database is proved to be as it was.

A superuser deletes with triggers and foreign keys out of action (`session_replication_role`). An ordinary role
deletes in the order of the foreign keys, and truncates tables that resist: in a cycle, with a trigger or rule on
DELETE, or with row security that is forced on their owner. It is one class, for each of its steps is on the one
connection and needs what was learnt at the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
from psycopg import generators, pq

from .catalog import FINGERPRINT, QUICK, describe, differences
from .databases import CONNECT_SECONDS, LOCK_SECONDS
from .left import COUNTS, NOTHING_LEFT, SERVERS, end_blocking, end_holding, end_prepared
from .tables import REFERENCES, SEQUENCES, TABLES, Table, children_first, state

_PAGES = 32
"""A table whose dead rows fill more pages than these is truncated: every scan would pay for them."""


@dataclass
class Found:
    """What the end of a test found: `faults` fail it, and a database that is `spoilt` is thrown away."""

    faults: list[str] = field(default_factory=list)
    spoilt: bool = False
    server_changed: bool | None = None
    """Whether things came to the server since the last reset, or went (see leaks.py); None where that is not known."""


class _Row(NamedTuple):
    """What a round trip told, as PostgreSQL writes it."""

    left: tuple[bytes | None, ...]
    quick: bytes | None
    big: bytes | None
    objects: bytes | None
    server: bytes | None
    states: tuple[bytes | None, ...]


class Reset:
    """Takes one database back to how it is now, on a connection of its own.

    `spared` are the backends whose open transactions are meant to be. On a server of our own, where we are a superuser,
    it looks also for what came to the server (`watched`).
    """

    def __init__(self, url: str, *, lock_seconds: float = LOCK_SECONDS, watched: bool = False) -> None:
        self._url = url
        self._seconds = lock_seconds
        self._watched = watched
        self.spared: tuple[int, ...] = ()
        self._connection = self._connect()
        self._oid: int = self._one("select oid from pg_database where datname = current_database()")
        self._replica = self._with_triggers_off()
        self._learn()
        self._before = describe(self._connection)
        self._fingerprint = self._one(FINGERPRINT)
        self._arm()
        self._expected = self._round_trip(Found())

    def _one(self, query: str) -> Any:  # noqa: ANN401 (whatever is asked for)
        row = self._connection.execute(query.encode()).fetchone()
        return row[0] if row else None

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name="reset between tests",
            options=f"-c lock_timeout={int(self._seconds * 1000)}",
            prepare_threshold=None,
        )

    def _with_triggers_off(self) -> bool:
        try:
            self._connection.execute("set session_replication_role = replica")
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    def _learn(self) -> None:
        """Find tables and their order, keep a copy of the rows that are there, and where sequences stand."""
        rows = self._connection.execute(TABLES, {"replica": self._replica}).fetchall()
        tables = {row[0]: Table(*row) for row in rows}
        references = [pair for pair in self._connection.execute(REFERENCES) if set(pair) <= tables.keys()]
        self._references = references
        self._tables, cyclic = children_first(tables, references, by_order=not self._replica)
        resisting = {table.oid for table in self._tables if table.resists} | cyclic
        while more := {child for child, parent in references if parent in resisting} - resisting:
            # TRUNCATE wants all that refer to a table along with it.
            resisting |= more
        for table in self._tables:
            table.resists = table.oid in resisting
            table.seeded = bool(self._one(f"select exists (select from only {table.name})"))
        self._sequences = {
            name: self._connection.execute(f"select last_value, is_called from {name}".encode()).fetchone()
            for _, name in self._connection.execute(SEQUENCES).fetchall()
        }
        self._copies: dict[str, list[bytes]] = {}
        for table in self._tables:
            if table.seeded:
                with self._connection.cursor().copy(self._copy_out(table).encode()) as copy:
                    self._copies[table.name] = [bytes(block) for block in copy]

    def _copy_out(self, table: Table) -> str:
        return f"copy (select {table.columns} from only {table.name}) to stdout"

    def _arm(self) -> None:
        """Prepare, on the connection as it is now, what every reset executes."""
        self._deletes = []
        for number, table in enumerate(self._tables):
            if not table.seeded and not table.resists:
                self._connection.execute(f"prepare empty{number} as delete from only {table.name}".encode())
                self._deletes.append(f"execute empty{number}")
        sequences = " union all ".join(
            f"select setval('{name}'::regclass, {value}, {called}) from {name} "
            f"where (last_value, is_called) is distinct from ({value}, {called})"
            for name, (value, called) in (
                (n.replace("'", "''"), s or (1, False)) for n, s in self._sequences.items()
            )
        )
        self._sets = ["execute sequences"] if sequences else []
        if sequences:
            self._connection.execute(f"prepare sequences as {sequences}".encode())
        self._looked_at = [table for table in self._tables if table.seeded or table.resists]
        sizes = ", ".join(f"pg_relation_size({table.oid})" for table in self._tables if not table.seeded)
        columns = [
            f"({QUICK})",
            f"greatest({sizes or 0}) > {_PAGES * 8192}",
            "(select count(*) from pg_largeobject_metadata)",
            SERVERS if self._watched else "null",
            *map(state, self._looked_at),
        ]
        self._connection.execute(f"prepare look as select {', '.join(columns)}".encode())
        self._connection.execute(f"prepare others(int[]) as {COUNTS.format(oid=self._oid)}".encode())

    def __call__(self) -> Found:
        """Take the database back; see Found. Raises psycopg.Error where the server cannot be reached."""
        found = Found()
        try:
            self._compare(self._round_trip(found), found)
        except psycopg.Error:
            if self._connection.closed:
                raise
            # A table that is gone cannot be emptied; what else changed is told with it.
            self._tell_changes(found)
        return found

    def _reconnect(self) -> None:
        self._connection.close()
        self._connection = self._connect()
        self._with_triggers_off()
        self._arm()

    def _send(self, statements: str) -> list[pq.abc.PGresult]:
        """Send statements past psycopg's cursors, which take their time for each of many results."""
        pgconn = self._connection.pgconn
        pgconn.send_query(statements.encode())
        results: list[pq.abc.PGresult] = self._connection.wait(generators.execute(pgconn))
        for result in results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        return results

    def _round_trip(self, found: Found) -> _Row:
        others = f"execute others('{{{','.join(map(str, self.spared))}}}')"
        statements = "; ".join([others, *self._deletes, *self._sets, "execute look"])
        for last in (False, False, True):
            try:
                first, *_, end = self._send(statements)
                quick, big, objects, server, *states = _values(end)
                return _Row(_values(first), quick, big, objects, server, tuple(states))
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                if last:
                    raise
                tables = [table.oid for table in self._tables]
                found.faults += end_blocking(self._connection, self.spared, tables, self._seconds)
                # One that was prepared holds locks that no backend has.
                found.faults += end_prepared(self._connection)
            except psycopg.OperationalError:
                # A test that ends every connection to its database ends this one too.
                if last or not self._connection.closed:
                    raise
                self._reconnect()
        raise AssertionError

    def _compare(self, row: _Row, found: Found) -> None:
        expected = self._expected
        if row.left != NOTHING_LEFT:
            found.faults += end_holding(self._connection, self.spared, self._seconds)
            found.faults += end_prepared(self._connection)
            # What they held is free now, and what they wrote is gone or can be deleted.
            row = self._round_trip(found)
        found.server_changed = row.server != expected.server if self._watched else None
        if row.quick != expected.quick and self._one(FINGERPRINT) != self._fingerprint:
            self._tell_changes(found)
            return
        if row.objects != expected.objects:
            self._connection.execute(b"select lo_unlink(oid) from pg_largeobject_metadata")
            found.spoilt = expected.objects != b"0"
        states = row.states
        if states != expected.states:
            changed = [
                table
                for table, now, then in zip(self._looked_at, states, expected.states, strict=True)
                if now != then
            ]
            self._restore(changed, found)
            states = self._round_trip(found).states
        if row.big == b"t":
            self._give_pages_back()
        if not found.spoilt:
            self._expected = row._replace(objects=expected.objects, states=states)

    def _restore(self, changed: list[Table], found: Found) -> None:
        """Bring back the rows of the template, parents first, or empty what only TRUNCATE can."""
        truncated = (
            [table for table in self._looked_at if table.resists] if any(t.resists for t in changed) else []
        )
        wanted = self._with_children([*changed, *truncated])
        if any(table.seeded and table.insert_triggers for table in wanted):
            # Its triggers would write other rows than these.
            found.spoilt = True
            return
        with self._connection.transaction():
            self._connection.execute(b"set constraints all deferred")
            if truncated:
                names = ", ".join(f"only {table.name}" for table in truncated)
                self._connection.execute(f"truncate {names}".encode())
            for table in wanted:
                if table not in truncated:
                    self._connection.execute(f"delete from only {table.name}".encode())
            for table in reversed(wanted):
                if table.seeded:
                    into = f"copy {table.name} ({table.columns}) from stdin"
                    with self._connection.cursor().copy(into.encode()) as copy:
                        for block in self._copies[table.name]:
                            copy.write(block)

    def _with_children(self, tables: list[Table]) -> list[Table]:
        """Add the tables whose rows would hold those of these, in the order in which rows can go."""
        oids = {table.oid for table in tables}
        while not self._replica and (
            more := {child for child, parent in self._references if parent in oids} - oids
        ):
            oids |= more
        return [table for table in self._tables if table.oid in oids]

    def _give_pages_back(self) -> None:
        """Truncate the tables, which are empty, so that their pages and statistics are a new database's again."""
        # TRUNCATE wants what refers to a table along with it, and rows of the template are not for that.
        kept = {table.oid for table in self._tables if table.seeded}
        while more := {parent for child, parent in self._references if child in kept} - kept:
            kept |= more
        names = [f"only {table.name}" for table in self._tables if table.oid not in kept]
        if names:
            self._connection.execute(f"truncate {', '.join(names)}".encode())

    def _tell_changes(self, found: Found) -> None:
        found.spoilt = True
        if changed := differences(self._before, describe(self._connection)):
            found.faults.append(
                f"The test changed more than rows: {changed}. The database was thrown away. "
                'Give the test one of its own: @pytest.mark.postgres("clone").'
            )

    def close(self) -> None:
        self._connection.close()


def _values(result: pq.abc.PGresult) -> tuple[bytes | None, ...]:
    return tuple(result.get_value(0, column) for column in range(result.nfields))
