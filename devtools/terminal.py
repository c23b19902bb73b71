"""How the developer's commands speak and end."""

import sys
from collections.abc import Callable
from typing import NoReturn

from backend.errors import UserError
from backend.scripts import terminal
from freshpg import PostgresUnavailable


def note(line: str) -> None:
    """Print a line about what happens on standard error, apart from what the command prints."""
    print(line, file=sys.stderr, flush=True)


def enter(main: Callable[[], int | None]) -> NoReturn:
    """Do as `backend.scripts.terminal.enter` does; PostgresUnavailable is a UserError too."""

    def with_server() -> int | None:
        try:
            return main()
        except PostgresUnavailable as error:
            raise UserError(str(error)) from None

    terminal.enter(with_server)
