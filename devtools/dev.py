"""Serve the API with reload on the developer's database: `nox -s dev`."""

import os
import sys

from backend.scripts import serve
from devtools.command_line import enter
from devtools.database import find_own


def main() -> None:
    """Serve until Ctrl-C, then stop the database server if it was started for this. Takes the arguments of `serve`."""
    arguments = ["--reload", *sys.argv[1:]]
    options = serve.parse(arguments, "nox -s dev --")
    settings = serve.settings_for(options)
    serve.refuse_taken_port(options.host, settings.api_port)
    with find_own(settings, create=True) as url:
        os.environ["DATABASE_URL"] = url
        serve.main(arguments)


if __name__ == "__main__":
    enter(main)
