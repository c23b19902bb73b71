"""Messages, exit codes and signals of the developer's commands."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from backend.scripts import console
from freshpg import PostgresUnavailable


def note(line: str) -> None:
    """Print a line on standard error, apart from the command's own output."""
    print(line, file=sys.stderr, flush=True)


def enter(main: Callable[[], int | None]) -> NoReturn:
    """Do the same as `backend.scripts.console.enter`, and treat PostgresUnavailable as a UserError.

    SIGTERM ends the command like Ctrl-C, so that it cleans up.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        console.enter(main)
    except PostgresUnavailable as error:
        sys.exit(str(error))
