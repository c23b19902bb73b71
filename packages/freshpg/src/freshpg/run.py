"""What one run of pytest knows of its server and databases, in the process that starts the server or in a worker."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import conninfo

from .databases import Databases, new_run_id
from .orphans import this_process
from .reset import Reset
from .server import Kind, PostgresUnavailable, SecretURL, Server, without_libpq_variables
from .server_selection import Choice, choose

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    Migrate = Callable[[str], object]

URL_VARIABLE = "TEST_DATABASE_URL"
WORKER_INPUT = "freshpg"
_HANDED = "FRESHPG_HANDED"
"""For workers that need the URL before xdist hands them theirs, as they load their first conftest.py."""
ENVIRONMENT = "postgres_environment"
SETTINGS = "postgres_settings"
_LIBPQ = {
    "PGHOST": "host",
    "PGPORT": "port",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGDATABASE": "dbname",
}


@dataclass(frozen=True)
class Handed:
    """What a worker is handed by the process that started the server."""

    url: str
    kind: Kind
    version: str
    run_id: str
    owner: str
    worker: str


class Run:
    """The server is chosen, started and filled at the first look at each."""

    def __init__(self, config: pytest.Config, options: Namespace) -> None:
        self._config = config
        self._options = options
        self._choice: Choice | None = None
        self._server: Server | None = None
        self._databases: Databases | None = None
        self._reset: Reset | None = None
        self._environment = ExitStack()
        self._run_id, self._owner, self.worker = new_run_id(), this_process(), "main"
        self._further: list[str] = []
        self._made = 0
        """How many databases single tests asked for, or had kept."""
        self._others: frozenset[str] = frozenset()
        self._environment_is_set = False
        self.boot_seconds = 0.0
        self.is_worker = False
        self.on_disconnect: list[Callable[[], object]] = []
        """Called after connections to the worker's database were ended."""
        if "PYTEST_XDIST_WORKER" in os.environ and _HANDED in os.environ:
            handed = json.loads(os.environ[_HANDED])
            self.take(handed | {"worker": os.environ["PYTEST_XDIST_WORKER"]})

    def take(self, values: dict[str, Any]) -> None:
        """Be a worker, on the server that was handed over."""
        handed, self.is_worker = Handed(**values), True
        if self._server is not None:
            return
        self._server = Server(handed.url, handed.version, handed.kind)
        self._run_id, self._owner, self.worker = handed.run_id, handed.owner, handed.worker
        self._hide_libpq_variables(handed.kind)

    def _hide_libpq_variables(self, kind: Kind) -> None:
        # They are meant for another server, and would break connections to ours (PGSSLMODE, for one).
        if kind != "given":
            self._environment.enter_context(without_libpq_variables())

    @property
    def choice(self) -> Choice:
        """The choice of a server; pytest.UsageError if there is none."""
        if self._choice is None:
            request, variable = self._options.postgres, os.environ.get(URL_VARIABLE)
            named_by = "--postgres" if request or not variable else URL_VARIABLE
            try:
                self._choice = choose(
                    request or variable or "auto",
                    image=self._options.postgres_image,
                    settings=self._config.getini(SETTINGS),
                    named_by=named_by,
                    to_create=True,
                )
            except PostgresUnavailable as error:
                raise pytest.UsageError(str(error)) from None
            self._hide_libpq_variables(self._choice.kind)
        return self._choice

    @property
    def server(self) -> Server:
        """The server, started at the first look; PostgresUnavailable if it does not start."""
        if self._server is None:
            choice, began = self.choice, time.perf_counter()
            self._server = choice.start()
            self.boot_seconds = time.perf_counter() - began
            if self._server.kind == "given" and (orphans := self.databases.drop_orphans()):
                self._server.notes += (f"Dropped databases of a killed run: {', '.join(orphans)}",)
        return self._server

    @property
    def started(self) -> Server | None:
        """The server, if something needed it so far."""
        return self._server

    @property
    def databases(self) -> Databases:
        if self._databases is None:
            self._databases = Databases(self.server.url, self._run_id, self._owner)
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

    def new_database(self, migrate: Migrate, *, empty: bool) -> SecretURL:
        """Create a further database, which `after_test` drops."""
        self._made += 1
        name = f"{self._name}_new{self._made}"
        self.databases.create(name, *([] if empty else [self.databases.template(migrate)]))
        self._further.append(name)
        return self.databases.url_of(name)

    def set_environment(self) -> None:
        """Set what `postgres_environment` names, once: libpq's variables to parts of the URL, others to the URL."""
        names: list[str] = self._config.getini(ENVIRONMENT)
        if names and not self._environment_is_set:
            self._environment_is_set = True
            parts = conninfo.conninfo_to_dict(self.url)
            for name in names:
                self._set(name, str(parts.get(_LIBPQ[name]) or "") if name in _LIBPQ else self.url)
            self._set(_HANDED, json.dumps(self.for_worker("")))

    def set_placeholders(self) -> None:
        """Set URLs that lead nowhere, if no test will run: code that reads them as it is imported can be collected."""
        url = "postgresql://not_started:not_started@127.0.0.1:1/not_started"
        parts = conninfo.conninfo_to_dict(url)
        for name in self._config.getini(ENVIRONMENT):
            if name not in os.environ:
                self._set(name, str(parts[_LIBPQ[name]]) if name in _LIBPQ else url)

    def _set(self, name: str, value: str) -> None:
        self._environment.callback(_restore_variable, name, os.environ.get(name))
        os.environ[name] = value

    def in_use(self, *, kept: bool) -> list[str]:
        """Return the names of the databases of the test that runs, as they are called once they are kept."""
        own = [] if self._reset is None else [f"{self._name}_kept{self._made + 1}" if kept else self._name]
        return own + self._further

    def expect_databases(self) -> None:
        """Take the databases that the server has now as no test's."""
        if self._databases is not None and self._drops_foreign:
            self._others = self._databases.others()

    @property
    def _drops_foreign(self) -> bool:
        # With several workers on one server nobody can tell whose test made a database.
        return not self.is_worker and self.server.kind != "given"

    def after_test(self, test: str, *, keep: bool) -> list[str]:
        """Take the databases back to where they were before a test, or keep them and make others.

        Returns the transactions that the test had left open, in words. Raises psycopg.Error if the server is gone.
        """
        further, self._further = self._further, []
        if keep:
            self._keep(test, further)
        else:
            self.databases.drop(further)
        if self._reset is None:
            found, left_open = self.databases.others() if self._drops_foreign else frozenset(), []
        else:
            outcome = self._reset()
            found, left_open = outcome.databases, outcome.left_open
            if outcome.is_spoilt:
                self._replace()
            elif left_open:
                self._disconnected()
        if self._drops_foreign:
            foreign = found - self._others
            self.databases.drop_foreign(
                name for name in foreign if not name.startswith(self.databases.prefix)
            )
        return left_open

    def _keep(self, test: str, further: list[str]) -> None:
        for name in further:
            self.databases.keep(name, name, test)
        if self._reset is not None:
            self._reset.close()
            self._made += 1
            self.databases.keep(self._name, f"{self._name}_kept{self._made}", test)
            self._replace()

    def _replace(self) -> None:
        assert self._reset is not None  # noqa: S101 (there is a database)
        self._reset.close()
        self._disconnected()
        self.databases.replace(self._name, f"{self.databases.prefix}template")
        self._reset = Reset(self.url)

    def _disconnected(self) -> None:
        for forget in self.on_disconnect:
            forget()

    def for_worker(self, worker: str) -> dict[str, str]:
        """Return what a worker is handed."""
        server = self.server
        return asdict(Handed(server.url, server.kind, server.version, self._run_id, self._owner, worker))

    def end(self) -> None:
        """Drop what the run made on a given server, or stop the server if it is ours and nothing is kept."""
        server, self._server = self._server, None
        try:
            if self._reset is not None:
                self._reset.close()
            if server is not None and not self.is_worker:
                self._end_server(server)
            if self._databases is not None:
                self._databases.close()
        finally:
            self._environment.close()
            if server is not None:
                server.stop()

    def _end_server(self, server: Server) -> None:
        if server.kind != "given":
            return
        databases = self._databases or Databases(server.url, self._run_id, self._owner)
        try:
            failed = databases.drop_all()
        except psycopg.Error as error:
            failed = [f"all that begin with {databases.prefix} ({error})"]
        finally:
            databases.close()
        if failed:
            print(f"Databases of this run that could not be dropped: {', '.join(failed)}", file=sys.stderr)  # noqa: T201


def _restore_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


RUN = pytest.StashKey[Run]()
