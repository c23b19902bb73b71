"""A running PostgreSQL server, how one that was just started is waited for, and why there may be none."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import quote

import psycopg
from psycopg import pq

from .libpq import connect, connected_version, last_line

Kind = Literal["given", "docker", "embedded"]

ADMINISTRATIVE_DATABASE = "postgres"
SUPERUSER = "postgres"
START_SECONDS = 120.0
NOTICE_SECONDS = 2.0
"""For Docker or the supervisor to notice the end of a server, after a client did."""
_POLL_SECONDS = 0.002

TEST_SETTINGS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "max_prepared_transactions=16",
    "timezone=UTC",
    "log_timezone=UTC",
    # Every copy of a database makes two checkpoints, which would fill the log.
    "log_checkpoints=off",
    # In the data directory: a server that is killed leaves nothing in /dev/shm, and a container's is small.
    "dynamic_shared_memory_type=mmap",
)
"""Settings of every server that is started for tests, in a container or from programs on this machine."""


class PostgresUnavailable(Exception):  # noqa: N818 (callers read it as a word)
    """No server is available. The message says what was tried and what would help, without a password."""

    @property
    def reason(self) -> str:
        """The first line of the message, without its full stop, to be part of another sentence."""
        return str(self).splitlines()[0].rstrip(".")


@dataclass
class Server:
    """A PostgreSQL server that accepts connections. Leaving its `with` block stops it if this process started it."""

    url: str = field(repr=False)
    """`postgresql://...` of the administrative database, as a role that may create databases."""
    version: str
    """As the server says it: `18.6`."""
    kind: Kind
    on_stop: Callable[[], object] | None = field(default=None, repr=False)
    on_leave: Callable[[], str] | None = field(default=None, repr=False)
    describe_death: Callable[[], str | None] = field(default=lambda: None, repr=False)
    """Return one line with the exit status and the end of the log if a server of this process ended, else None.

    For a server that does not answer any more: if it runs, that takes two seconds."""

    def stop(self) -> None:
        """Stop the server if this process started it; a second call does nothing."""
        stop, self.on_stop, self.on_leave = self.on_stop, None, None
        if stop is not None:
            stop()

    def leave_running(self) -> str:
        """Let the server outlive this process; return the command that ends it, empty if the server is not ours."""
        leave, self.on_stop, self.on_leave = self.on_leave, None, None
        return "" if leave is None else leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def local_url(port: int, password: str, *, host: str = "127.0.0.1") -> str:
    """Return the administrative URL of a server that listens on this port."""
    return f"postgresql://{SUPERUSER}:{quote(password, safe='')}@{host}:{port}/{ADMINISTRATIVE_DATABASE}"


def wait_until_ready(
    what: str, find_url: Callable[[], str], ended: Callable[[], str | None], log: Callable[[], str]
) -> tuple[str, str]:
    """Wait until a server that was just started accepts connections; return its URL and its version.

    `ended` tells how the server ended, None if it still runs. Raises PostgresUnavailable with the end of the log.
    """
    deadline = time.monotonic() + START_SECONDS
    while (end := ended()) is None and time.monotonic() < deadline:
        # The port of a container may not be mapped yet although it runs.
        with suppress(ConnectionError, TimeoutError):
            url = find_url()
            if pq.PGconn.ping(f"{url}?connect_timeout=5".encode()) == pq.Ping.OK:
                break
        time.sleep(_POLL_SECONDS)
    else:
        reason = f"the server ended with {end}" if end else f"it was not ready within {START_SECONDS:.0f} s"
        raise PostgresUnavailable(with_log(f"{what} did not start: {reason}.", log()))
    try:
        with connect(url) as connection:
            return url, connected_version(connection)
    except psycopg.Error as error:
        reason = f"it refuses connections: {last_line(error)}"
        raise PostgresUnavailable(with_log(f"{what} did not start: {reason}.", log())) from None


def with_log(message: str, log: str) -> str:
    """Return the message followed by the last lines of a log."""
    tail = "\n".join(f"  {line}" for line in log.strip().splitlines()[-20:])
    return f"{message} Its log ends:\n{tail}" if tail else message


def death_line(what: str, log: str) -> str:
    """Return one line that says what ended, and the last lines of its log."""
    tail = " | ".join(line.strip() for line in log.strip().splitlines()[-3:])
    return f"{what}. Its log ends: {tail}" if tail else f"{what}."
