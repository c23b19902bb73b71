"""Shared by the scripts: printing, exit codes, and an engine whose errors become short messages."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from sqlalchemy import URL, Engine

from backend.database import connect
from backend.errors import UserError
from backend.startup import database_errors_reported


def say(message: str) -> None:
    """Print a line and flush it, so that it also appears in a pipe at once."""
    print(message, flush=True)


def enter(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and exit with its code: 1 after a UserError, whose text is printed, and 130 after Ctrl-C."""
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def engine_for(url: str | URL) -> Iterator[Engine]:
    """Yield an engine on the database. Errors of the database become a short UserError."""
    engine = connect(url)
    try:
        with database_errors_reported(engine):
            yield engine
    finally:
        engine.dispose()
