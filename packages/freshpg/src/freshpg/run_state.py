"""What one run of pytest knows of its server."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from .choose import Choice, choose
from .databases import Databases, new_run_id
from .libpq import without_libpq_variables
from .owner import Owner, act_for, this_process
from .seeds import NoInput, digest_of
from .server import Kind, PostgresUnavailable, Server

if TYPE_CHECKING:
    from collections.abc import Collection

URL_VARIABLE = "TEST_DATABASE_URL"
WORKER_INPUT = "postgres"
TEMPLATE_INPUTS = "postgres_template_inputs"


class Run:
    """What one run of pytest knows of its server, in the process that starts it or in a worker."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._choice: Choice | None = None
        self._server: Server | None = None
        self.run_id = new_run_id()
        self.worker = "main"
        self.boot_seconds = 0.0
        """How long the server took to start, if this process started it."""
        self.kept: dict[str, str] = {}
        """The databases that outlive the run, each with the test that failed on it."""
        self._environment = ExitStack()
        handed: dict[str, Any] | None = getattr(config, "workerinput", {}).get(WORKER_INPUT)
        if handed is not None:
            kind: Kind = handed["kind"]
            self._server = Server(handed["url"], handed["version"], kind, log=handed["log"])
            self.run_id, self.worker = handed["run_id"], handed["worker"]
            self._keep_ours_apart(kind)
            controller = Owner.parse(handed["owner"])
            if controller is not None:
                act_for(controller)

    def _keep_ours_apart(self, kind: Kind) -> None:
        """Keep what libpq reads from the environment, and is meant for another server, from one of ours."""
        if kind != "given":
            self._environment.enter_context(without_libpq_variables())

    @property
    def choice(self) -> Choice:
        """The choice, made at the first look; UsageError where no server can be had."""
        if self._choice is None:
            option = self._config.getoption
            request, by_variable = option("--postgres"), os.environ.get(URL_VARIABLE)
            named_by = "--postgres" if request or not by_variable else URL_VARIABLE
            try:
                self._choice = choose(
                    request or by_variable or "auto",
                    image=option("--postgres-image"),
                    pull_seconds=option("--postgres-pull-seconds"),
                    named_by=named_by,
                    to_create=True,
                )
            except PostgresUnavailable as error:
                source = "" if named_by in str(error) or named_by == "--postgres" else f"{named_by}: "
                raise pytest.UsageError(f"{source}{error}") from None
            self._keep_ours_apart(self._choice.kind)
        return self._choice

    @property
    def server(self) -> Server:
        """The server, started at the first look; PostgresUnavailable where it does not start."""
        if self._server is None:
            choice, began = self.choice, time.perf_counter()
            self._server = choice.start(template=self._template_digest())
            self.boot_seconds = time.perf_counter() - began
            if self._server.kind == "given":
                self._server.notes = _drop_abandoned(Databases(self._server.url, self.run_id))
        return self._server

    @property
    def started(self) -> Server | None:
        """The server, if something needed it so far."""
        return self._server

    def _template_digest(self) -> str | None:
        """Return the digest of what the project says makes its template; UsageError where that names no file."""
        try:
            return digest_of(self._config.rootpath, self._config.getini(TEMPLATE_INPUTS))
        except NoInput as error:
            raise pytest.UsageError(f"{TEMPLATE_INPUTS}: {error}.") from None

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of how the server was started, if it was."""
        return self._server.notes if self._server is not None else ()

    def for_worker(self, worker: str) -> dict[str, str]:
        """Return what a worker has to be handed."""
        server = self.server
        described = {
            "url": server.url,
            "kind": server.kind,
            "version": server.version,
            "log": server.log,
        }
        return described | {"run_id": self.run_id, "worker": worker, "owner": str(this_process())}

    def end(self) -> None:
        """Drop what the run made on a server that stays, or stop the one that does not."""
        self._environment.close()
        server, self._server = self._server, None
        if server is None or hasattr(self._config, "workerinput"):
            return
        try:
            if server.kind == "given":
                _drop_all(Databases(server.url, self.run_id), self.kept)
            elif self.kept:
                server.leave_running()
        finally:
            server.stop()


RUN = pytest.StashKey[Run]()


def _drop_abandoned(databases: Databases) -> tuple[str, ...]:
    """Drop what killed runs left, and return what to tell of it."""
    try:
        left = databases.drop_abandoned()
    except psycopg.Error:
        # A server that answers no more is told by the first test that needs it.
        return ()
    finally:
        databases.close()
    return (f"Databases that a killed run had left were dropped: {', '.join(left)}",) if left else ()


def _drop_all(databases: Databases, kept: Collection[str]) -> None:
    try:
        left = databases.drop_all(but=kept)
    except psycopg.Error as error:
        left = [f"all that begin with {databases.prefix} ({error})"]
    finally:
        databases.close()
    if left:
        print(f"Databases of this run that could not be dropped: {', '.join(left)}", file=sys.stderr)  # noqa: T201  for a person
