"""The databases of one process's tests: those in use, those made ahead, and those that wait to be dropped."""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    from .databases import Databases

_AHEAD = 2
_DROP_AFTER = 8
"""So many databases that nobody needs any more are kept: dropping one just after its last connection takes 100 ms."""
_TRIES = 5
_JOIN_SECONDS = 30


class Shelf:
    """Hands out databases and takes them back.

    A thread makes those ahead that `wanted` says tests will ask for, and drops those given back; without one that is
    done as it is asked for.
    """

    def __init__(self, open_databases: Callable[[], Databases], worker: str, wanted: dict[str, int]) -> None:
        self._open = open_databases
        self.databases = open_databases()
        self._worker = worker
        self._wanted = dict(wanted)
        self._numbers = count()
        self._ready: dict[str, deque[str]] = {"clone": deque(), "empty": deque()}
        self._done: deque[str] = deque()
        self._changed = threading.Condition()
        self._making: str | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._template: str | None = None

    def new_name(self, purpose: str) -> str:
        return f"{self.databases.prefix}{self._worker}_{purpose}{next(self._numbers)}"

    def know_template(self, name: str) -> None:
        """Say of what clones are made; from now on the thread makes ahead, if tests will ask."""
        self._template = name
        self.start()

    def start(self) -> None:
        """Start the thread where tests will ask for databases of their own."""
        if self._thread is None and any(self._wanted.values()):
            self._thread = threading.Thread(target=self._run, name="databases made ahead", daemon=True)
            self._thread.start()
        else:
            with self._changed:
                self._changed.notify_all()

    def take(self, purpose: str) -> str:
        """Return the name of a new database, `clone` or `empty`, made ahead if the thread was quick enough."""
        with self._changed:
            self._wanted[purpose] = max(0, self._wanted.get(purpose, 0) - 1)
            while not self._ready[purpose] and self._making == purpose:
                self._changed.wait(1)
            if self._ready[purpose]:
                name = self._ready[purpose].popleft()
                self._changed.notify_all()
                return name
        return self._make(self.databases, purpose)

    def give_back(self, name: str) -> None:
        with self._changed:
            self._done.append(name)
            self._changed.notify_all()
        if self._thread is None and len(self._done) > 2 * _DROP_AFTER:
            self.databases.drop([self._done.popleft() for _ in range(_DROP_AFTER)])

    def close(self) -> None:
        """Stop the thread and drop what is left."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
        self.databases.drop([*self._done, *self._ready["clone"], *self._ready["empty"]])
        self.databases.close()

    def _make(self, databases: Databases, purpose: str) -> str:
        name = self.new_name(purpose)
        for last in (*[False] * _TRIES, True):
            try:
                if purpose == "clone" and self._template is not None:
                    databases.create(name, self._template)
                else:
                    databases.create(name)
            except psycopg.errors.ObjectInUse:
                # The source is looked into by somebody for a moment: an autovacuum worker, a person's psql.
                if last:
                    raise
            else:
                break
        return name

    def _next(self) -> str | None:
        for purpose, ready in self._ready.items():
            if purpose == "clone" and self._template is None:
                continue
            if len(ready) < min(_AHEAD, self._wanted.get(purpose, 0)):
                return purpose
        return None

    def _run(self) -> None:
        databases = self._open()
        try:
            while True:
                with self._changed:
                    while not self._closing and self._next() is None and len(self._done) <= _DROP_AFTER:
                        self._changed.wait()
                    if self._closing:
                        return
                    purpose = self._making = self._next()
                    dropped = None if purpose else self._done.popleft()
                if dropped is not None:
                    databases.drop([dropped])
                elif purpose is not None:
                    name = self._make(databases, purpose)
                    with self._changed:
                        self._ready[purpose].append(name)
                        self._making = None
                        self._changed.notify_all()
        except psycopg.Error:
            # Whoever asks next makes it itself, and is told in its own test what is wrong with the server.
            pass
        finally:
            with self._changed:
                self._making = None
                self._wanted.clear()
                self._changed.notify_all()
            databases.close()
