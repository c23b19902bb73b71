"""How the developer's commands end."""

from collections.abc import Callable
from typing import NoReturn

from backend.errors import UserError
from backend.scripts import terminal
from freshpg import PostgresUnavailable


def enter(main: Callable[[], int | None]) -> NoReturn:
    """Do as `backend.scripts.terminal.enter` does; no PostgreSQL server is a UserError too."""

    def with_server() -> int | None:
        try:
            return main()
        except PostgresUnavailable as error:
            raise UserError(str(error)) from None

    terminal.enter(with_server)
