"""Serve the API: check the settings and the port, wait for the database, bring it to head, and start uvicorn.

All that can be wrong is told here, in a line or two: from inside uvicorn it could be a traceback, and with reload it
would be a process that never ends.
"""

import argparse
import errno
import logging.config
import socket
from collections.abc import Sequence

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from backend.config import ROOT, ConfigurationError, load_settings
from backend.scripts.terminal import engine_for
from backend.startup import start_database

# How long a request in flight may take to finish. Compose's stop_grace_period is longer.
GRACE_SECONDS = 20


def main(arguments: Sequence[str] | None = None) -> None:
    settings = load_settings()
    options = parse(arguments, default_port=settings.api_port)
    logging.config.dictConfig(LOGGING_CONFIG)
    refuse_taken_port(options.host, options.port)
    with engine_for(settings) as engine:
        start_database(engine, settings)
    try:
        uvicorn.run(
            "backend.main:create_app",
            factory=True,
            host=options.host,
            port=options.port,
            reload=options.reload,
            reload_dirs=[str(ROOT / "backend")] if options.reload else None,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def parse(arguments: Sequence[str] | None, *, default_port: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="serve", description="Serve the API on the configured database, brought to head first."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=default_port, help="port to listen on (API_PORT, %(default)s)")
    parser.add_argument("--reload", action="store_true", help="start anew when a file below backend/ is saved")
    return parser.parse_args(arguments)


def refuse_taken_port(host: str, port: int) -> None:
    """Raise ConfigurationError where nobody could listen, before anything else is started."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise ConfigurationError(
                f"Port {port} on {host} {reason}: stop what listens there, or set API_PORT to a free one."
            ) from error


if __name__ == "__main__":
    main()
