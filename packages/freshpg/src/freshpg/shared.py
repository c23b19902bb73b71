"""The database that a process's tests share, and its way back after each of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .guard import TierTooWeak
from .holder import HeldConnection
from .keeping import renamed
from .reset import Found, Reset
from .server import database_url

if TYPE_CHECKING:
    from psycopg import BaseConnection

    from .held import Held
    from .ledger import Use
    from .shelf import Shelf


SESSIONS = 500
"""After so many tests that were rolled back, scans would begin to feel their dead rows."""


class Shared:
    """One copy of the template. Where a test spoils it, another takes its place under its name."""

    def __init__(self, shelf: Shelf, template: str, lock_seconds: float, *, watched: bool) -> None:
        self._shelf = shelf
        self._template = template
        self._new_reset = partial(Reset, lock_seconds=lock_seconds, watched=watched)
        self.name = shelf.new_name("shared")
        self.url = shelf.databases.create(self.name, template)
        # It learns what to go back to, and so it is there before any test can write.
        self._reset = self._new_reset(self.url)
        self.held: Held | None = None
        """The tier `session` on this database, once there is one."""
        self.committing: Use | None = None
        """The use of a test that commits truly, while it lasts."""
        self.in_session = False
        self.written_past = False
        """Whether a connection past the engine may have committed what no reset has looked at yet."""
        self.sessions = 0
        """So many tests of the tier `session` may have used sequences since the last reset, and left dead rows."""

    def see(self, connection: BaseConnection[object]) -> None:
        """Note a connection that somebody opened past the engine, or refuse it where it would see nothing."""
        if isinstance(connection, HeldConnection) or connection.pgconn.db.decode() != self.name:
            return
        self.written_past = True
        if self.in_session and self.held is not None and self.held.wrote:
            weak = TierTooWeak(
                "Another connection was opened to the test's database, and sees nothing of what it wrote."
            )
            self.held.note(str(weak))
            raise weak

    def restore(self) -> Found:
        """Take the database back to the template, or another copy in its place where that cannot be."""
        reset, held = self._reset, self.held
        real = held.real if held is not None and held.is_alive else None
        reset.spared = (real.info.backend_pid,) if real is not None else ()
        found = reset()
        self.written_past, self.sessions = False, 0
        if found.spoilt:
            self.replace()
        return found

    def name_if_kept(self) -> str:
        """Return the name under which the database would be kept for a person, if its test fails."""
        return self._shelf.new_name("kept")

    def replace(self, *, kept_as: str | None = None) -> None:
        """Set the database aside, to be dropped later or kept, and clone another under its name."""
        self.close()
        if self.held is not None:
            self.held.close()
        aside = kept_as or self._shelf.new_name("spoilt")
        self._shelf.databases.set_aside(self.name, aside)
        if kept_as is None:
            self._shelf.give_back(aside)
        else:
            renamed(self.name, aside)
        self.url = database_url(self.url, self.name)
        self._shelf.databases.create(self.name, self._template)
        self._reset = self._new_reset(self.url)

    def close(self) -> None:
        self._reset.close()
