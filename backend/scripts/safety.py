"""Whether a database may be changed for good: by the settings, its host, its environment marker, or a typed name.

And what is said if another connection holds a lock on what was to be changed.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from shlex import quote
from typing import TYPE_CHECKING, cast

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from backend.config import AppEnv, Settings
from backend.errors import UserError
from backend.migrations import drop_all, environment_marker
from backend.scripts.terminal import say
from backend.startup import LOCK_NOT_AVAILABLE, describe, sqlstate

if TYPE_CHECKING:
    import psycopg

DEADLOCK = "40P01"


@dataclass(frozen=True)
class DestructiveAction:
    """What is to be done to a database, in the words of the message that refuses it."""

    undone: str
    """`Nothing was dropped`."""
    verb: str
    """`drop`."""
    command: str
    """The command that does it after all; the database's name follows."""
    what: str | None = None
    """What it is done to; None if that is everything in the database, which is then listed."""


@contextmanager
def telling_who_holds(engine: Engine, undone: str) -> Iterator[None]:
    """Turn a lock that was not granted in time into a UserError that lists who may hold it."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) not in (LOCK_NOT_AVAILABLE, DEADLOCK):
            raise
        with engine.connect() as connection:
            holding = "".join(f"\n  {holder}" for holder in drop_all.holders(connection))
        raise UserError(
            f"{undone}: another connection holds a lock.{holding}\n"
            "Wait for it, or end it: `nox -s db_shell -- -c 'SELECT pg_terminate_backend(PID)'`."
        ) from error


def refuse_production(settings: Settings, sentence: str) -> None:
    """Raise UserError if the settings say that this is production."""
    if settings.app_env is AppEnv.PRODUCTION:
        raise UserError(f"APP_ENV is production: {sentence}")


def refuse_unless_ours(
    engine: Engine, settings: Settings, action: DestructiveAction, *, typed_name: str | None
) -> None:
    """Raise UserError unless the database is local and marked as development or test, or its name was typed.

    A database that is marked as production is refused in any case. At a terminal the name is asked for.
    """
    with engine.connect() as connection:
        # What the connection itself reports: PGHOSTADDR or a service file may lead elsewhere than the URL says.
        info = cast("psycopg.Connection", connection.connection.driver_connection).info
        name = info.dbname
        mark = environment_marker.read(connection)
        found = [thing for thing, _ in drop_all.contents(connection)]
        local = is_local(info.host, info.hostaddr)
    place = describe(settings.url)
    if mark == AppEnv.PRODUCTION:
        raise UserError(
            f"{action.undone} in {place}: it is marked as production, regardless of APP_ENV.\n"
            "If it is a copy, mark it as one: `COMMENT ON TABLE alembic_version IS 'procore-integrator, development'`."
        )
    doubts = []
    if not local:
        doubts.append("It is a remote database, so its name must be typed.")
    if found and mark is None:
        doubts.append("It is not marked as a development or test database, so it may be somebody else's.")
    what = action.what or ", ".join(found) or "nothing, because it is empty"
    if typed_name is None and doubts and sys.stdin is not None and sys.stdin.isatty():
        say(f"{' '.join(doubts)}\nThis would {action.verb} in {place}: {what}.")
        try:
            typed_name = input("Type the database's name to continue: ")
        except (EOFError, UnicodeDecodeError):  # Ctrl-D, or bytes that are not text
            typed_name = ""
            say("")
    if typed_name == name or (typed_name is None and not doubts):
        return
    if typed_name is not None:
        doubts = [f"The name given is {typed_name!r}, but the database is {name!r}."]
    raise UserError(
        f"{action.undone} in {place}. {' '.join(doubts)}\n"
        f"To {action.verb} {what}: `{action.command} {quote(name)}`."
    )


def is_local(host: str, address: str) -> bool:
    """Whether a connection to this host, at this address, is to a socket, to loopback, or to Compose's `db`."""
    if host == "db" or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
