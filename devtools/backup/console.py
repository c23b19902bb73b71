"""Showing at the terminal what takes time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done while the block runs; call what it yields to add how far it is."""
    with Console(stderr=True).status(Text(f"{what} ...")) as status:
        yield lambda far: status.update(Text(f"{what}: {far} ..."))
