"""What one run of pytest knows of its server and databases, in the process that starts the server or in a worker."""

import itertools
import json
import os
import secrets
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property

import psycopg
import pytest
from psycopg import conninfo

from .databases import Databases
from .libpq import LIBPQ_PARTS, SecretURL, major_version, without_libpq_variables
from .reset import Reset
from .server import PostgresUnavailable, Server
from .server_selection import Choice, choose

Migrate = Callable[[str], object]
URL_VARIABLE = "TEST_DATABASE_URL"
ENVIRONMENT = "postgres_environment"
SETTINGS = "postgres_settings"
_OLDEST = 15
"""The first version that copies databases with `strategy file_copy`."""
_WORKER = "PYTEST_XDIST_WORKER"
_HANDED = "FRESHPG_HANDED"
"""Carries the server's URL to the workers: they need it for their first conftest.py, before xdist sends anything."""


class Run:
    """The server is chosen, started and filled at the first look at each."""

    def __init__(self, config: pytest.Config, options: Namespace) -> None:
        self._config = config
        self._options = options
        self._environment = ExitStack()
        self._databases: Databases | None = None
        self._reset: Reset | None = None
        self._run_id = secrets.token_hex(5)  # plugins seed `random`, and two runs would meet under one name
        self._further: list[str] = []
        self._numbers = itertools.count(1)
        """Numbers the databases that tests ask for or keep."""
        self._known: frozenset[str] = frozenset()
        """Databases of the server that are no single test's."""
        self.started: Server | None = None
        """The server, if something needed it so far."""
        self.boot_seconds = 0.0
        self.notes: list[str] = []
        """Lines for people about anything unexpected."""
        self.is_reset = False
        """Whether `after_test` was called for the test that runs."""
        self.on_disconnect: Callable[[], object] = lambda: None
        """Called after connections to the worker's database were ended."""
        # Removed, because a program that a test starts is no worker.
        handed = os.environ.pop(_HANDED, None) if _WORKER in os.environ else None
        self.is_worker = handed is not None
        self.worker = os.environ.get(_WORKER, "main")
        if handed is not None:
            values = json.loads(handed)
            self._run_id = values.pop("run_id")
            self.started = Server(**values)

    def hand_to_workers(self) -> None:
        """Start the server and put what workers have to know where they look for it."""
        server = self.server
        values = {"url": server.url, "kind": server.kind, "version": server.version, "run_id": self._run_id}
        self._set(_HANDED, json.dumps(values))

    @cached_property
    def choice(self) -> Choice:
        """The choice of a server. Raises pytest.UsageError if there is none."""
        request, variable = self._options.postgres, os.environ.get(URL_VARIABLE)
        try:
            choice = choose(
                request or variable or "auto",
                image=self._options.postgres_image,
                to_create=True,
                settings=self._config.getini(SETTINGS),
                named_by="--postgres" if request or not variable else URL_VARIABLE,
            )
        except PostgresUnavailable as error:
            raise pytest.UsageError(str(error)) from None
        if choice.kind != "given":
            self._environment.enter_context(without_libpq_variables())
        return choice

    @property
    def server(self) -> Server:
        """The server, started at the first look. Raises pytest.UsageError if it does not start."""
        if self.started is None:
            choice, began = self.choice, time.perf_counter()
            try:
                server = choice.start()
            except PostgresUnavailable as error:
                raise pytest.UsageError(str(error)) from None
            if major_version(server.version) < _OLDEST:
                server.stop()
                raise pytest.UsageError(
                    f"freshpg needs PostgreSQL {_OLDEST} or newer; this is {choice.announcement}."
                )
            self.started = server
            self.boot_seconds = time.perf_counter() - began
            if choice.kind == "given" and (orphans := self.databases.drop_orphans()):
                self.notes.append(f"Dropped databases of a killed run: {', '.join(orphans)}")
        return self.started

    @property
    def databases(self) -> Databases:
        if self._databases is None:
            self._databases = Databases(self.server.url, self._run_id)
            self.expect_databases()
        return self._databases

    @property
    def _name(self) -> str:
        return f"{self.databases.prefix}{self.worker}"

    @property
    def url(self) -> SecretURL:
        """The URL of this worker's database, which `create_database` makes."""
        return self.databases.url_of(self._name)

    def create_database(self, migrate: Migrate) -> SecretURL:
        """Create this worker's database as a copy of the template; return its URL."""
        if self._reset is None:
            self.databases.create(self._name, self.databases.template(migrate))
            self._reset = Reset(self.url)
        return self.url

    def new_database(self, migrate: Migrate, *, empty: bool = False) -> SecretURL:
        """Create a further database, which `after_test` drops."""
        name = f"{self._name}_new{next(self._numbers)}"
        self.databases.create(name, *([] if empty else [self.databases.template(migrate)]))
        self._further.append(name)
        return self.databases.url_of(name)

    def set_environment(self, *, is_started: bool) -> None:
        """Set what `postgres_environment` names: libpq's variables to parts of the URL, others to the URL.

        If no test will run, the URL leads nowhere: code that reads it as it is imported can be collected.
        """
        names: list[str] = self._config.getini(ENVIRONMENT)
        if not names:
            return
        url = self.url if is_started else "postgresql://not_started:not_started@127.0.0.1:1/not_started"
        parts = conninfo.conninfo_to_dict(url)
        for name in names:
            self._set(name, str(parts.get(LIBPQ_PARTS[name]) or "") if name in LIBPQ_PARTS else url)

    def _set(self, name: str, value: str) -> None:
        self._environment.enter_context(pytest.MonkeyPatch.context()).setenv(name, value)

    def in_use(self) -> list[str]:
        """Return the names of the databases of the test that runs, unless they are reset already."""
        return ([] if self._reset is None or self.is_reset else [self._name]) + self._further

    def expect_databases(self) -> None:
        """Take the databases that the server has now as no test's."""
        if self._databases is not None and self._drops_foreign:
            self._known = self._databases.all()

    @property
    def _drops_foreign(self) -> bool:
        # With several workers on one server nobody can tell whose test made a database.
        return not self.is_worker and self.server.kind != "given"

    def after_test(self, test: str, *, keep: bool) -> list[str]:
        """Take the databases back to where they were before a test, or keep them and make others.

        Returns the transactions that the test had left open, in words. Raises psycopg.Error if the server is gone.
        """
        left_open: list[str] = []
        self.is_reset = True
        if self._reset is None:
            found = self.databases.all() if self._drops_foreign else frozenset()
        elif keep:
            self._replace(kept_for=test)
            found = self.databases.all()
        else:
            outcome = self._reset()
            found, left_open = outcome.databases, outcome.left_open
            if outcome.must_be_replaced:
                self._replace()
            elif left_open:
                self.on_disconnect()
        while self._further:
            name = self._further.pop()
            if keep:
                self.databases.keep(name, test)
            else:
                self.databases.drop(name)
        if self._drops_foreign:
            self.databases.drop_foreign(found - self._known)
        return left_open

    def _replace(self, *, kept_for: str = "") -> None:
        assert self._reset is not None  # noqa: S101 (there is a database)
        self._reset.close()
        self.on_disconnect()
        if kept_for:
            kept_name = f"{self._name}_kept{next(self._numbers)}"
            self.databases.rename(self._name, kept_name)
            self.databases.keep(kept_name, kept_for)
        else:
            self.databases.drop(self._name)
        self.databases.create(self._name, f"{self.databases.prefix}template")
        self._reset = Reset(self.url)

    def end(self) -> None:
        """Drop what the run made on a given server, or stop the server if it is ours and nothing is kept."""
        try:
            if self._reset is not None:
                self._reset.close()
            if self._databases is not None:
                if not self.is_worker and self.server.kind == "given":
                    self._databases.drop_all()
                self._databases.close()
        except psycopg.Error as error:
            names = f"test_{self._run_id}_*"
            print(f"Databases of this run could not be dropped ({names}): {error}", file=sys.stderr)  # noqa: T201  for a person
        finally:
            self._environment.close()
            if self.started is not None:
                self.started.stop()


RUN = pytest.StashKey[Run]()
