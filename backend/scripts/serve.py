"""Serve the API: check the settings and the port, wait for the database, bring it to head, and start uvicorn.

All that can be wrong is told here, in a line or two: from inside uvicorn it could be a traceback, and with reload it
would be a process that never ends.
"""

import argparse
import errno
import logging.config
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.scripts import reload

# How long a request in flight may take to finish. Compose's stop_grace_period is longer.
GRACE_SECONDS = 20


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    # The first process of a container ignores what it does not handle, and uvicorn's handlers come later.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if options.reload:
        reload.warm_up()
    serve(options)


def serve(options: argparse.Namespace) -> None:
    # Not at the top, so that with reload two processes import side by side: this one, and the one that was warmed up.
    import uvicorn  # noqa: PLC0415  see above

    from backend.config import load_settings  # noqa: PLC0415  see above

    settings = load_settings()
    port = settings.api_port if options.port is None else options.port
    refuse_taken_port(options.host, port)
    config = uvicorn.Config(
        "backend.main:create_app",
        factory=True,
        host=options.host,
        port=port,
        reload=options.reload,
        reload_dirs=[str(Path(__file__).parents[1])] if options.reload else None,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    if options.reload:
        sys.exit(reload.serve(config, prepare))
    prepare()
    # uvicorn raises again, once all is finished, the signal that stopped it: that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        sys.exit(1)


def prepare() -> None:
    """Bring the database that the settings name to head. Raises UserError, which says why it cannot be."""
    from uvicorn.config import LOGGING_CONFIG  # noqa: PLC0415  see serve

    from backend.config import load_settings  # noqa: PLC0415  see above
    from backend.scripts.terminal import engine_for  # noqa: PLC0415  see above
    from backend.startup import start_database  # noqa: PLC0415  see above

    logging.config.dictConfig(LOGGING_CONFIG)
    settings = load_settings()
    with engine_for(settings) as engine:
        start_database(engine, settings)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="serve", description="Serve the API on the configured database, brought to head first."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=port_number, help="port to listen on (API_PORT, by default 8000)")
    parser.add_argument(
        "--reload", action="store_true", help="start anew when a file below backend/ is saved"
    )
    return parser.parse_args(arguments)


def port_number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:  # noqa: PLR2004  the protocol's own; 0 has the system choose
        raise ValueError
    return number


def refuse_taken_port(host: str, port: int) -> None:
    """Raise UserError where nobody could listen, before anything else is started."""
    from backend.errors import UserError  # noqa: PLC0415  see serve

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise UserError(
            f"Port {port} on {host} {reason}: stop what listens there, or set API_PORT to a free one."
        ) from error


if __name__ == "__main__":
    from backend.scripts.terminal import enter

    enter(main)
