"""What a script says when another connection holds a lock on what it wants to change."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from backend.errors import UserError
from backend.migrations import drop_all
from backend.startup import LOCK_NOT_AVAILABLE, sqlstate

DEADLOCK = "40P01"
LONGEST = 1_000_000
"""In seconds; PostgreSQL counts milliseconds, in 31 bits."""


@contextmanager
def telling_who_holds(engine: Engine, undone: str, lock_timeout: float) -> Iterator[None]:
    """Turn a lock that was not free within `lock_timeout` seconds into a UserError that lists who may hold it."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) not in (LOCK_NOT_AVAILABLE, DEADLOCK):
            raise
        with engine.connect() as connection:
            holding = "".join(f"\n  {holder}" for holder in drop_all.holders(connection))
        raise UserError(
            f"{undone}: another connection has held a lock for {lock_timeout:g} s.{holding}\n"
            "Wait for it, or end it: `nox -s db_shell -- -c 'SELECT pg_terminate_backend(PID)'`."
        ) from error


def add_lock_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lock-timeout",
        metavar="SECONDS",
        type=positive_seconds,
        default=5,
        help="how long to wait for locks of other connections (%(default)s)",
    )


def positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= LONGEST:  # which nan is not
        raise argparse.ArgumentTypeError(f"it must be a number above 0 and up to {LONGEST:,}")
    return seconds
