"""Whose a database is, before anything in it is changed for good: by settings, host, its own mark, or a typed name."""

import sys
from dataclasses import dataclass
from ipaddress import ip_address
from shlex import quote
from typing import TYPE_CHECKING, cast

from sqlalchemy import Engine

from backend.config import AppEnv, Settings
from backend.errors import UserError
from backend.migrations import drop_all, environment_marker
from backend.scripts.terminal import say
from backend.startup import describe

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class DestructiveAction:
    """What is to be done to a database, in the words that refuse it."""

    undone: str
    """`Nothing was dropped`."""
    verb: str
    """`drop`."""
    command: str
    """What does it all the same, where the database's name follows."""
    what: str | None = None
    """What it is done to; None where that is everything in the database, which is then listed."""


def refuse_production(settings: Settings, sentence: str) -> None:
    """Raise UserError where the settings say that this is production."""
    if settings.app_env is AppEnv.PRODUCTION:
        raise UserError(f"APP_ENV is production: {sentence}")


def refuse_unless_ours(
    engine: Engine, settings: Settings, deed: DestructiveAction, *, typed_name: str | None
) -> None:
    """Raise UserError unless the database is near and its mark vouches for it, or its name was typed.

    No name will do where the mark says production. Where nobody typed it and somebody is at the terminal, it is asked.
    """
    name = settings.url.database
    with engine.connect() as connection:
        # What the connection says of itself: a URL leaves it to libpq's PGHOSTADDR and its like where it leads.
        info = cast("psycopg.Connection", connection.connection.driver_connection).info
        mark = environment_marker.read(connection)
        found = [thing for thing, _ in drop_all.contents(connection)]
        near = is_near(info.host, info.hostaddr)
    place = describe(settings.url)
    if mark == AppEnv.PRODUCTION:
        raise UserError(
            f"{deed.undone} in {place}: by its own mark it is production's, whatever APP_ENV says here.\n"
            "If it is a copy of one, say so in it: `COMMENT ON TABLE alembic_version IS "
            "'procore-integrator, development'`."
        )
    doubts = doubts_of(near=near, marked=mark is not None or not found)
    what = deed.what or ", ".join(found) or "nothing, it is empty"
    if typed_name is None and doubts and sys.stdin is not None and sys.stdin.isatty():
        say(f"{' '.join(doubts)}\nWhat would be done in {place}: {deed.verb} {what}.")
        try:
            typed_name = input(f"Type the database's name to {deed.verb} that: ")
        except (EOFError, UnicodeDecodeError):  # Ctrl-D, or what is no text
            typed_name = ""
            say("")
    if typed_name == name or (typed_name is None and not doubts):
        return
    if typed_name is not None:
        doubts = [f"The name typed is {typed_name!r} and the database's is {name!r}."]
    raise UserError(
        f"{deed.undone} in {place}. {' '.join(doubts)}\nTo {deed.verb} {what}: `{deed.command} {quote(name or '')}`."
    )


def doubts_of(*, near: bool, marked: bool) -> list[str]:
    doubts = []
    if not near:
        doubts.append("It is neither on this machine nor Compose's, so its name must be typed.")
    if not marked:
        doubts.append("It bears no mark of development or test, so it may be somebody else's.")
    return doubts


def is_near(host: str, address: str) -> bool:
    """Whether a connection to this host, which had this address, is on a socket, on loopback, or to Compose's `db`."""
    if host == "db" or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
