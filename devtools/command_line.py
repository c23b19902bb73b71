"""How the developer's commands speak and end."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, by a KeyboardInterrupt."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
