"""The environment variables that libpq reads: meant for another server, they would break connections to ours."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import Iterator

_BESIDE_OPTIONS = ("PGSERVICEFILE", "PGSYSCONFDIR", "PGREQUIRESSL", "PGDATESTYLE", "PGTZ", "PGGEQO")


def libpq_variables() -> frozenset[str]:
    """Return the names of the variables that change how this libpq connects."""
    options = (option.envvar for option in pq.Conninfo.parse(b""))
    return frozenset(_BESIDE_OPTIONS).union(name.decode() for name in options if name)


@contextmanager
def without_libpq_variables() -> Iterator[None]:
    """Take them out of this process's environment, and so of its children's, for as long as the block runs."""
    taken = {name: os.environ.pop(name) for name in libpq_variables() if name in os.environ}
    try:
        yield
    finally:
        for name, value in taken.items():
            os.environ.setdefault(name, value)
