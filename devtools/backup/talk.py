"""How the commands speak: what they are at while they are at it, and a refusal as a line."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import psycopg
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from backend.errors import UserError
from devtools.children import sigterm_as_ctrl_c
from freshpg import PostgresUnavailable

_INTERRUPTED = 130


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Show at the terminal what goes on for as long as the block does; what is lent is told how far it is."""
    with Console(stderr=True).status(Text(f"{what} ...")) as status:
        yield lambda far: status.update(Text(f"{what}: {far} ..."))


def counted(
    chunks: Iterable[bytes], tell: Callable[[str], None], total: int | None = None
) -> Iterator[bytes]:
    """Pass pieces on, and tell how many bytes they were so far."""
    passed = 0
    for chunk in chunks:
        yield chunk
        passed += len(chunk)
        tell(decimal(passed) + (f" of {decimal(total)}" if total else ""))


def enter(main: Callable[[], None]) -> None:
    """Run a command: what ends it is told in a line or two, without a traceback, and SIGTERM is like Ctrl-C."""
    try:
        with sigterm_as_ctrl_c():
            main()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except psycopg.Error as error:
        sys.exit(f"PostgreSQL refused: {first_line(error)}.")
    except (PostgresUnavailable, UserError) as error:
        sys.exit(str(error))


def first_line(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).removesuffix(".")
