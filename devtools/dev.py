"""Serve the API with reload on the database that the ladder finds: `nox -s dev`."""

import os
import sys

from backend.scripts import reload, serve
from devtools.terminal import enter


def main() -> None:
    """Serve until Ctrl-C; what was started for it is stopped after it. The arguments are those of `serve`."""
    options = serve.parse(["--reload", *sys.argv[1:]])
    run(options.host, options.port)


def run(host: str, port: int | None) -> None:
    # First of all, for it is what takes longest; the rest is imported meanwhile.
    reload.warm_up()
    from backend.config import load_settings  # noqa: PLC0415  after the warm-up, see above
    from devtools.database import find  # noqa: PLC0415  after the warm-up, see above

    settings = load_settings()
    serve.refuse_taken_port(host, settings.api_port if port is None else port)
    with find(settings, make=True) as found:
        os.environ["DATABASE_URL"] = found.url
        serve.main(["--reload", *sys.argv[1:]])


if __name__ == "__main__":
    enter(main)
