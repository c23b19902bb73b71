"""The database that a process's tests share, and its way back after each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .guard import TierTooWeak
from .holder import HeldConnection
from .keeping import renamed
from .reset import Found, Reset
from .server import database_url

if TYPE_CHECKING:
    from psycopg import BaseConnection

    from .held import Held
    from .shelf import Shelf


class Shared:
    """One copy of the template. Where a test spoils it, another takes its place under its name."""

    def __init__(self, shelf: Shelf, template: str, lock_seconds: float) -> None:
        self._shelf = shelf
        self._template = template
        self._lock_seconds = lock_seconds
        self.name = shelf.new_name("shared")
        self.url = shelf.databases.create(self.name, template)
        self._reset: Reset | None = Reset(self.url, lock_seconds=lock_seconds)
        self.held: Held | None = None
        """The tier `session` on this database, once there is one."""
        self.in_session = False
        self.written_past = False
        """Whether a connection past the engine may have committed in a test of the tier `session`."""
        self.sequences_used = False
        """Whether such a test may have used sequences, which no rollback takes back."""

    @property
    def reset(self) -> Reset:
        """What takes the database back; learnt at the first look, before which no test of ours may write."""
        if self._reset is None:
            self._reset = Reset(self.url, lock_seconds=self._lock_seconds)
        return self._reset

    def see(self, connection: BaseConnection[object]) -> None:
        """Note a connection that somebody opened past the engine, or refuse it where it would see nothing."""
        if not self.in_session or isinstance(connection, HeldConnection):
            return
        if connection.pgconn.db.decode() != self.name or self.held is None:
            return
        self.written_past = True
        if self.held.wrote:
            weak = TierTooWeak(
                "Another connection was opened to the test's database, and sees nothing of what it wrote."
            )
            self.held.note(str(weak))
            raise weak

    def restore(self) -> Found:
        """Take the database back to the template, or another copy in its place where that cannot be."""
        reset, held = self.reset, self.held
        real = held.real if held is not None and held.is_alive else None
        reset.spared = (real.info.backend_pid,) if real is not None else ()
        found = reset()
        self.written_past = self.sequences_used = False
        if found.spoilt:
            self.replace()
        return found

    def name_if_kept(self) -> str:
        """Return the name under which the database would be kept for a person, if its test fails."""
        return self._shelf.new_name("kept")

    def ready(self) -> None:
        """Have the database as the template is, for a test that commits."""
        if self._reset is None:
            _ = self.reset
        if self.sequences_used or self.written_past:
            self.restore()

    def replace(self, *, kept_as: str | None = None) -> None:
        """Set the database aside, to be dropped later or kept, and clone another under its name."""
        if self._reset is not None:
            self._reset.close()
            self._reset = None
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

    def close(self) -> None:
        if self._reset is not None:
            self._reset.close()
