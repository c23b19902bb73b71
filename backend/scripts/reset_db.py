"""Drop what is in the database and build it anew: `nox -s db_reset`, or `python3 backend/scripts/reset_db.py`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from backend.scripts.by_path import use_environment

    use_environment()

from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from backend.config import AppEnv, ConfigurationError, Settings, load_settings
from backend.database import Cleared, reset_db
from backend.migrations import clearing, marker
from backend.scripts.terminal import engine_for, enter, say
from backend.startup import LOCK_NOT_AVAILABLE, describe, sqlstate, wait_for_database

if TYPE_CHECKING:
    import psycopg

DEADLOCK = "40P01"
NOTHING = {"reset": "Nothing was dropped", "restore": "Nothing was replaced"}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    settings = load_settings()
    if settings.app_env is AppEnv.PRODUCTION:
        raise ConfigurationError(
            "APP_ENV is production: a production database is never reset. Nothing was dropped."
        )
    with engine_for(settings) as engine:
        wait_for_database(engine, settings.database_wait_seconds, tell=say)
        refuse_unless_ours(engine, settings, typed_name=options.yes_drop)
        cleared = reset(engine, options.lock_timeout, settings.app_env)
    for holder in cleared.ended:
        say(f"  ended {holder}")
    for name in cleared.dropped:
        say(f"  dropped {name}")
    say(f"Database {describe(settings.url)} reset: {len(cleared.dropped)} things dropped, and built anew.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="reset_db",
        description="Drop whatever is in the configured database, known to the models or not, other schemas included, "
        "and build it anew. Without more ado that is done to a database on this machine, or Compose's, whose own mark "
        "says that it is one of development or test; elsewhere its name must be typed. Production is never reset.",
    )
    parser.add_argument(
        "--yes-drop", metavar="NAME", help="the database's name, to drop what is in it all the same"
    )
    parser.add_argument(
        "--lock-timeout",
        metavar="SECONDS",
        type=positive,
        default=5,
        help="how long to wait for others' locks (%(default)s)",
    )
    return parser.parse_args(arguments)


def positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def refuse_unless_ours(
    engine: Engine, settings: Settings, *, typed_name: str | None, verb: str = "reset"
) -> None:
    """Raise ConfigurationError unless the database is near and its mark vouches for it, or its name was typed.

    What is to be done is `reset` or `restore`. No name will do where the mark says production. Where nobody typed it
    and somebody is at the terminal, it is asked.
    """
    name = settings.url.database
    with engine.connect() as connection:
        # What the connection says of itself: a URL leaves it to libpq's PGHOSTADDR and its like where it leads.
        info = cast("psycopg.Connection", connection.connection.driver_connection).info
        mark = marker.read(connection)
        found = [thing for thing, _ in clearing.contents(connection)]
        near = is_near(info.host, info.hostaddr)
    place = describe(settings.url)
    if mark == AppEnv.PRODUCTION:
        raise ConfigurationError(
            f"{NOTHING[verb]} in {place}: by its own mark it is production's, whatever APP_ENV says here.\n"
            "If it is a copy of one, say so in it: `COMMENT ON TABLE alembic_version IS "
            "'procore-integrator, development'`."
        )
    doubts = doubts_of(near=near, marked=mark is not None or not found)
    if typed_name is None and doubts and sys.stdin.isatty():
        say(f"{' '.join(doubts)}\nWhat would go from {place}: {', '.join(found) or 'nothing, it is empty'}.")
        typed_name = input("Type the database's name to drop that: ")
    if typed_name == name or (typed_name is None and not doubts):
        return
    if typed_name is not None:
        doubts = [f"The name typed is {typed_name!r} and the database's is {name!r}."]
    raise ConfigurationError(
        f"{NOTHING[verb]} in {place}. {' '.join(doubts)}\n"
        f"To drop {', '.join(found) or 'nothing, it is empty'}: `nox -s db_{verb} -- --yes-drop {name}`."
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


def reset(engine: Engine, lock_timeout: float, environment: str) -> Cleared:
    try:
        return reset_db(engine, lock_timeout=lock_timeout, environment=environment)
    except DBAPIError as error:
        if sqlstate(error) not in (LOCK_NOT_AVAILABLE, DEADLOCK):
            raise
        with engine.connect() as connection:
            holding = "".join(f"\n  {holder}" for holder in clearing.holders(connection))
        raise ConfigurationError(
            f"Nothing was dropped: another connection has held a lock for {lock_timeout:g} s.{holding}\n"
            "Wait for it, or end it: `nox -s db_shell -- -c 'SELECT pg_terminate_backend(PID)'`."
        ) from error


if __name__ == "__main__":
    enter(main)
