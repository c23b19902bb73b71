"""Reload that answers anew within a second: uvicorn's, but the new process finds what it imports imported already.

Nearly all of a start is the import of packages that no save changes. A fork server imports them once; each save forks a
process from it, which imports nothing but this project. Only uvicorn's way of starting that process is replaced.
"""

import multiprocessing
import signal
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn import Config

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


def warm_up() -> None:
    """Start the fork server, which begins to import while this process goes on."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PACKAGES)
    forkserver.ensure_running()


def serve(config: "Config") -> None:
    """Serve, and start anew when a Python file below the package is saved; returns on SIGINT or SIGTERM."""
    # The process that is forked imports this module too, and has no use for the supervisor.
    from uvicorn import Server  # noqa: PLC0415
    from uvicorn._subprocess import subprocess_started  # noqa: PLC0415
    from uvicorn.supervisors.basereload import HANDLED_SIGNALS  # noqa: PLC0415
    from uvicorn.supervisors.watchfilesreload import WatchFilesReload  # noqa: PLC0415

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

    WarmReload(config, target=Server(config).run, sockets=[config.bind_socket()]).run()
