"""Decide whether a command may destroy data: by the settings, the host, the environment marker, or a typed name."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from shlex import join
from typing import TYPE_CHECKING, cast

from sqlalchemy import Engine

from backend.config import AppEnv, Settings
from backend.errors import UserError
from backend.migrations import drop_all, environment_marker
from backend.scripts.console import say
from backend.startup import describe

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class DestructiveAction:
    """A destructive action on a database, in the words of the message that refuses it."""

    verb: str
    """`drop`."""
    session: str
    """`db_reset`, the nox session."""
    option: str
    """`--yes-drop`, which confirms the action; the database's name follows."""
    arguments: Sequence[str] | None
    """The command's arguments; None means those of this process."""
    what: str | None = None
    """The objects that it changes; None means everything in the database, which is then listed."""

    def confirmation(self, name: str) -> str:
        """Return the command as it was typed, with the option that confirms it."""
        words = list(sys.argv[1:] if self.arguments is None else self.arguments)
        if self.option in words:
            at = words.index(self.option)
            del words[at : at + 2]  # and the name, which was wrong
        words = [word for word in words if not word.startswith(f"{self.option}=")]
        return join(["nox", "-s", self.session, "--", self.option, name, *words])


def refuse_production(settings: Settings, sentence: str) -> None:
    """Raise UserError if APP_ENV is production."""
    if settings.app_env is AppEnv.PRODUCTION:
        raise UserError(f"APP_ENV is production: {sentence}")


def refuse_unless_ours(engine: Engine, action: DestructiveAction, *, typed_name: str | None) -> None:
    """Raise UserError unless the database is local and marked as development or test, or its name was typed.

    A database that is marked as production is always refused. At a terminal, the user is asked for the name.
    """
    with engine.connect() as connection:
        # Ask the connection, because PGHOSTADDR or a service file may lead to another host than the URL.
        info = cast("psycopg.Connection", connection.connection.driver_connection).info
        name = info.dbname
        mark = environment_marker.read(connection)
        found = [thing for thing, _ in drop_all.contents(connection)]
        local = is_local(info.host, info.hostaddr)
    place = describe(engine.url)
    if mark == AppEnv.PRODUCTION:
        raise UserError(
            f"Nothing was changed in {place}: it is marked as production, regardless of APP_ENV.\n"
            "If it is a copy, mark it as one: `COMMENT ON TABLE alembic_version IS 'procore-integrator, development'`."
        )
    doubts = []
    if not local:
        doubts.append("It is a remote database, so its name must be typed.")
    if found and mark is None:
        doubts.append(
            "It is not marked as a development or test database, so it may belong to somebody else."
        )
    what = action.what or ", ".join(found) or "nothing, because it is empty"
    if typed_name is None and doubts and sys.stdin is not None and sys.stdin.isatty():
        say(f"{' '.join(doubts)}\nIn {place}, this would {action.verb} {what}.")
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
        f"Nothing was changed in {place}. {' '.join(doubts)}\n"
        f"To {action.verb} {what}: `{action.confirmation(name)}`."
    )


def is_local(host: str, address: str) -> bool:
    """Whether this host and address are a socket, loopback, or Compose's `db`."""
    if host == "db" or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
