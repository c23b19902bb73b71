"""The server's log: written so that one database's part can be told, and read for the report of a failed test."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .engine import connect_to_engine

if TYPE_CHECKING:
    from .server import Server

_TAIL_BYTES = 512 * 1024
_TAIL_LINES = 2000
_ENTRY = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[\d+\] (?:\[([^]]*)\] )?[A-Z0-9]+: ")

NO_SPACE = "No space left on device"


def read_log(server: Server, since: float = 0.0) -> str:
    """Return the end of the server's log; what it wrote before `since`, in seconds of the epoch, may be left out.

    Raises OSError, or what the container engine's client raises, where it cannot be read, and PostgresUnavailable
    where that engine does not answer.
    """
    if not server.log:
        raise FileNotFoundError("the log of a server that was given is not looked for")
    if server.kind == "docker":
        client = connect_to_engine()
        try:
            # docker refuses to be asked for what came since the epoch began.
            text: bytes = client.containers.get(server.log).logs(since=int(since) or None, tail=_TAIL_LINES)
        finally:
            client.close()
        return text.decode(errors="replace")
    with Path(server.log).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def lines_since(text: str, since: float, database: str | None = None) -> list[str]:
    """Return those lines of a log that were written since then; where `database` is given, by its sessions."""
    kept, wanted = [], False
    # The log's clock stops at milliseconds.
    earliest = since - 0.001
    for line in text.splitlines():
        if (entry := _ENTRY.match(line)) is not None:
            at = datetime.strptime(entry[1], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()
            wanted = at >= earliest and database in (None, entry[2])
        if wanted:
            kept.append(line)
    return kept


def tail_of(text: str, lines: int) -> str:
    """Return a log's last lines, indented."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])
