"""Reload that answers anew within a second: uvicorn's, but the new process finds what it imports imported already.

Nearly all of a start is the import of packages that no save changes. A fork server imports them once; each save forks a
process from it, which imports nothing but this project. Only uvicorn's way of starting that process is replaced.
"""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import TypeVar

from uvicorn import Config, Server
from uvicorn._subprocess import subprocess_started
from uvicorn.supervisors.basereload import HANDLED_SIGNALS
from uvicorn.supervisors.watchfilesreload import WatchFilesReload

T = TypeVar("T")

PACKAGES = [
    "fastapi",
    "fastapi.openapi.docs",
    "fastapi.staticfiles",
    "httptools",
    "psycopg",
    "pydantic_settings",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.orm",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
]


def ask(function: Callable[..., T], *arguments: object) -> T:
    """Call a function of this project in a process of its own, the first that the fork server makes; return its answer.

    Where it fails it has said why, and this process ends with its exit code.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PACKAGES)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        result: T = receiver.recv()
    except EOFError:
        process.join()
        sys.exit(process.exitcode or 1)
    process.join()
    return result


def answer(sender: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        sender.send(function(*arguments))
    except KeyboardInterrupt:
        sys.exit(130)


def serve(config: Config) -> None:
    """Serve, and start anew when a Python file below the package is saved; returns on SIGINT or SIGTERM."""
    WarmReload(config, target=Server(config).run, sockets=[config.bind_socket()]).run()


class WarmReload(WatchFilesReload):
    process: ForkServerProcess  # type: ignore[assignment]  # uvicorn declares one that is spawned

    def startup(self) -> None:
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.signal_handler)
        self.start_process()

    def restart(self) -> None:
        self.process.terminate()
        self.process.join()
        self.start_process()

    def start_process(self) -> None:
        self.process = multiprocessing.get_context("forkserver").Process(
            target=subprocess_started,
            kwargs={
                "config": self.config,
                "target": self.target,
                "sockets": self.sockets,
                "stdin_fileno": None,
            },
        )
        self.process.start()
