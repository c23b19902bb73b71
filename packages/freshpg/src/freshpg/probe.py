"""One question to a server, within a deadline, by libpq alone.

It is asked while a test fails: nothing that the test did to psycopg or to its engines takes part, and a server that
hangs holds nobody up.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import conninfo, pq

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "report of a failed test"
_LEAST_SECONDS = 0.05
_SILENT = "it did not answer in time"
_SILENCE_SECONDS = 0.4
_FAR_SILENCE_SECONDS = 3.0
_RECOVERY_SECONDS = 10.0
_PAUSE_SECONDS = 0.1
_REFUSALS = 3
"""So many attempts have to be refused before a server counts as dead: it ends the whole run."""
_SILENCES = 2
"""So many attempts without an answer are enough for one on this machine to count as alive: see below."""

_DEATHS = (
    "connection refused",
    "connection reset",
    "no such file or directory",
    "no route to host",
    "server closed the connection unexpectedly",
)
_PASSING = ("starting up", "shutting down", "not yet accepting", "in recovery mode")


class NoAnswer(Exception):  # noqa: N818 (it says what is so)
    """The server took no connection, or answered with an error, or not in time; the message is libpq's, on one line."""


def ask(url: str, question: str, seconds: float) -> Sequence[tuple[str, ...]]:
    """Return the rows, as text, of one statement on a new connection; null is empty. Raises NoAnswer."""
    deadline = time.monotonic() + max(seconds, _LEAST_SECONDS)
    try:
        connection = pq.PGconn.connect_start(conninfo.make_conninfo(url, application_name=NAME).encode())
        try:
            _connect(connection, deadline)
            connection.send_query(question.encode())
            return _rows(connection, deadline)
        finally:
            connection.finish()
    except psycopg.Error as error:
        raise NoAnswer(_on_one_line(str(error))) from None


def _connect(connection: pq.abc.PGconn, deadline: float) -> None:
    wanted = pq.PollingStatus.WRITING
    while wanted != pq.PollingStatus.OK:
        if wanted == pq.PollingStatus.FAILED:
            raise NoAnswer(_on_one_line(connection.get_error_message()))
        # With several hosts or addresses the socket is another one for each.
        _wait(connection, deadline, writing=wanted == pq.PollingStatus.WRITING)
        wanted = pq.PollingStatus(connection.connect_poll())


def _rows(connection: pq.abc.PGconn, deadline: float) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    while True:
        while connection.is_busy():
            _wait(connection, deadline, writing=False)
            connection.consume_input()
        result = connection.get_result()
        if result is None:
            return found
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise NoAnswer(_on_one_line(result.get_error_message()))
        columns = range(result.nfields)
        found += [
            tuple((result.get_value(row, column) or b"").decode() for column in columns)
            for row in range(result.ntuples)
        ]


def _wait(connection: pq.abc.PGconn, deadline: float, *, writing: bool) -> None:
    poll = select.poll()
    poll.register(connection.socket, select.POLLOUT if writing else select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise NoAnswer(_SILENT)


def _on_one_line(text: str) -> str:
    return " ".join(text.split()) or "no reason was given"


def refusal_of_the_dead(url: str, *, far: bool) -> str | None:
    """Return what libpq says of a server that is gone; None for one that lives, or may well do.

    A server that recovers from a crash of one of its processes is waited for, 10 s at most. What does not look like
    the server's own death (no file descriptors left here, a name that is not resolved) counts as none. Silence is the
    death of one that is far away alone, where the way to it may be cut: on this machine a connection is refused, and
    a test that holds a lock which each new connection needs makes for silence too.
    """
    deadline = time.monotonic() + _RECOVERY_SECONDS
    refused = silent = 0
    while True:
        try:
            ask(url, "select 1", _FAR_SILENCE_SECONDS if far else _SILENCE_SECONDS)
        except NoAnswer as error:
            said = str(error)
        else:
            return None
        if any(words in said for words in _PASSING):
            if time.monotonic() > deadline:
                return said
        elif said == _SILENT and not far:
            silent += 1
            if silent >= _SILENCES:
                return None
        elif "FATAL" in said or not (said == _SILENT or _looks_dead(said)):
            return None
        else:
            refused += 1
            if refused >= _REFUSALS:
                return said
        time.sleep(_PAUSE_SECONDS)


def _looks_dead(said: str) -> bool:
    return any(words in said.lower() for words in _DEATHS)
