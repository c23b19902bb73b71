"""Serve the API: check the settings and the port, wait for the database, bring its schema to head, start uvicorn.

Mistakes that a person has to correct are reported in one or two lines, before uvicorn starts its processes.
"""

import argparse
import errno
import logging.config
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from backend.config import Settings, load_settings
from backend.errors import UserError
from backend.scripts.console import engine_for, enter
from backend.startup import start_database

# The time that a request in flight has to finish. Compose's stop_grace_period is longer.
GRACE_SECONDS = 20
# The time in which a worker has to answer its parent, or it is replaced. It answers once Python has started and
# imported this module, for which uvicorn's 5 s are too short on a busy machine.
WORKER_SECONDS = 15
OPTIONS = {"api_port": "--port", "root_path": "--root-path", "web_concurrency": "--workers"}
LOGGERS = LOGGING_CONFIG["loggers"] | {
    "backend": {"handlers": ["default"], "level": "INFO", "propagate": False}
}
LOGGING: dict[str, Any] = LOGGING_CONFIG | {"loggers": LOGGERS}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    # The first process of a container ignores signals without a handler, and uvicorn installs its handlers later.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    settings = settings_for(options)
    refuse_taken_port(options.host, settings.api_port)
    logging.config.dictConfig(LOGGING)
    with engine_for(settings.database_url) as engine:
        start_database(engine, settings)
    # When everything is finished, uvicorn raises the signal that stopped it again; that is not a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        "backend.main:create_app",
        factory=True,
        host=options.host,
        port=settings.api_port,
        reload=options.reload,
        reload_dirs=[str(Path(__file__).parents[1])] if options.reload else None,
        workers=1 if options.reload else settings.web_concurrency,
        root_path=settings.root_path,
        log_config=LOGGING,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=WORKER_SECONDS,
    )


def parse(arguments: Sequence[str] | None, program: str = "serve") -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program, description="Bring the database's schema to head, and serve the API."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", dest="api_port", metavar="PORT", help="port to listen on (API_PORT, by default 8000)"
    )
    parser.add_argument(
        "--root-path",
        metavar="PREFIX",
        help="path prefix that a proxy in front of the API removes (ROOT_PATH)",
    )
    processes = parser.add_mutually_exclusive_group()
    workers = "number of worker processes (WEB_CONCURRENCY, by default 1)"
    processes.add_argument("--workers", dest="web_concurrency", metavar="N", help=workers)
    processes.add_argument(
        "--reload", action="store_true", help="restart when a Python file in backend/ is saved"
    )
    return parser.parse_args(arguments)


def settings_for(options: argparse.Namespace) -> Settings:
    """Read the settings; the options take precedence."""
    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    return load_settings({name: OPTIONS[name] for name in given}, **given)


def refuse_taken_port(host: str, port: int) -> None:
    """Raise UserError if it is not possible to listen on this port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:  # the latter is of a name such as a..b
        if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
            reason = error.strerror if isinstance(error, OSError) else "it is not a host's name"
            raise UserError(f"Cannot listen on port {port} of {host!r}: {reason}.") from error
        raise UserError(
            f"Port {port} on {host} is in use: stop the process that uses it, or choose another (API_PORT or --port)."
        ) from error


if __name__ == "__main__":
    enter(main)
