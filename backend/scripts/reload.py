"""Reload that answers anew within a second: uvicorn's, but the new process finds what it imports imported already.

Nearly all of a start is the import of packages that no save changes. A fork server imports them once; each save forks a
process from it, which imports nothing but this project. Only uvicorn's way of starting that process is replaced.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from uvicorn import Config
    from watchfiles.main import FileChange

LOOK = 100  # milliseconds that one look for changes takes at most

PACKAGES = [
    "fastapi.openapi.docs",
    "fastapi.staticfiles",
    "httptools",
    "psycopg",
    "pydantic_settings",
    "rich.console",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.orm",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
]


def warm_up() -> None:
    """Start the fork server, which imports while this process goes on. More than once is once."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PACKAGES)
    # Ctrl-C is this process's to answer: what it starts is stopped by SIGTERM, and keeps SIGINT blocked for good. The
    # tracker, which the fork server needs, lifts the block when it starts, and so has to be there before.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def serve(config: "Config", prepare: Callable[[], None]) -> int:
    """Serve, and start anew when a Python file below the package is saved, until SIGINT or SIGTERM.

    `prepare` is called in each new process before it serves. Returns an exit code: that of the first process if it
    ended by itself, for then the mistake is not in what was saved, and nobody would look for a terminal that waits.
    """
    # Not at the top: what is imported there is imported before the fork server can be started.
    from uvicorn import Server  # noqa: PLC0415  see above
    from uvicorn.supervisors.basereload import HANDLED_SIGNALS  # noqa: PLC0415  see above
    from uvicorn.supervisors.watchfilesreload import WatchFilesReload  # noqa: PLC0415  see above

    class WarmReload(WatchFilesReload):
        process: ForkServerProcess  # type: ignore[assignment]  # uvicorn declares one that is spawned
        should_exit: "Flag"  # type: ignore[assignment]  # uvicorn declares threading's
        first: ForkServerProcess | None = None
        exit_code = 0

        def startup(self) -> None:
            self.should_exit = Flag()
            for number in HANDLED_SIGNALS:
                signal.signal(number, self.signal_handler)
            self.watcher = look_at(self.reload_dirs, self.should_exit)
            self.start_process()
            self.first = self.process
            threading.Thread(target=self.follow, args=(self.first,), daemon=True).start()

        def restart(self) -> None:
            self.first = None
            self.process.terminate()
            self.process.join()
            self.start_process()

        def start_process(self) -> None:
            self.process = multiprocessing.get_context("forkserver").Process(
                target=serve_once, args=(dict(os.environ), prepare, self.config, self.sockets)
            )
            self.process.start()

        def follow(self, first: ForkServerProcess) -> None:
            connection.wait([first.sentinel])
            if self.first is first and not self.should_exit.is_set():
                self.exit_code = 1
                self.should_exit.set()

    supervisor = WarmReload(config, target=Server(config).run, sockets=[config.bind_socket()])
    supervisor.run()
    return supervisor.exit_code


def look_at(directories: "list[Path]", stop: "Flag") -> "Generator[set[FileChange], None, None]":
    """Return what tells of changes below the directories, from now on."""
    from watchfiles import watch  # noqa: PLC0415  see serve

    watcher = watch(
        *directories,
        watch_filter=None,
        stop_event=stop,
        yield_on_timeout=True,
        rust_timeout=LOOK,
        ignore_permission_denied=True,
    )
    # A watch begins with its first look. It is taken now, or a save during the start would be lost.
    next(watcher, None)
    return watcher


class Flag:
    """An event for signal handlers: threading's has a lock, which what they interrupt may hold, and then for good."""

    def __init__(self) -> None:
        self._is_set = False
        self._woken: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        self._is_set = True
        self._woken.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> bool:
        with suppress(Empty):
            self._woken.get(timeout=seconds)
        return self._is_set


def serve_once(
    environment: dict[str, str], prepare: Callable[[], None], config: "Config", sockets: list[object]
) -> None:
    """Prepare and serve, in a process that the fork server made before the environment was what it is now."""
    from uvicorn import Server  # noqa: PLC0415  see serve

    os.environ.update(environment)
    threading.Thread(target=follow_parent, daemon=True).start()
    prepare()
    Server(config).run(sockets=sockets)  # type: ignore[arg-type]  # they are sockets; pickled on the way


def follow_parent() -> None:
    """Stop serving when the supervisor is gone, even if it was killed: the port must be free for the next one."""
    if parent := multiprocessing.parent_process():
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
