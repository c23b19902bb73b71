"""Messages, exit codes and signals of the developer's commands."""

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
    """Print a line on standard error, apart from the command's own output."""
    print(line, file=sys.stderr, flush=True)


def enter(main: Callable[[], int | None]) -> NoReturn:
    """Do the same as `backend.scripts.terminal.enter`, and treat PostgresUnavailable as a UserError."""

    def with_server() -> int | None:
        try:
            return main()
        except PostgresUnavailable as error:
            raise UserError(str(error)) from None

    terminal.enter(with_server)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the block with a KeyboardInterrupt, like Ctrl-C."""

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
