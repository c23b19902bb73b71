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
from sqlalchemy.exc import OperationalError

from backend.config import AppEnv, ConfigurationError, Settings, load_settings
from backend.database import contents, reset_db
from backend.scripts.terminal import engine_for, enter, say
from backend.startup import describe, wait_for_database

if TYPE_CHECKING:
    import psycopg

LOCK_NOT_AVAILABLE = "55P03"


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
        dropped = reset(engine, options.lock_timeout)
    for name in dropped:
        say(f"  dropped {name}")
    say(f"Database {describe(settings.url)} reset: {len(dropped)} things dropped, and built anew.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="reset_db",
        description="Drop every table, view, sequence, routine and type in the configured database, "
        "known to the models or not, and build it anew. "
        "Only a development or test database on this machine, or Compose's, is dropped without more ado.",
    )
    parser.add_argument("--yes-drop", metavar="NAME", help="the database's name, to drop it wherever it is")
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


def refuse_unless_ours(engine: Engine, settings: Settings, *, typed_name: str | None) -> None:
    """Raise ConfigurationError, which lists what would have gone, unless the database is near or its name was typed."""
    name = settings.url.database
    with engine.connect() as connection:
        # What the connection says of itself: a URL leaves it to libpq's PGHOSTADDR and its like where it leads.
        info = cast("psycopg.Connection", connection.connection.driver_connection).info
        if typed_name == name or (typed_name is None and is_near(info.host, info.hostaddr)):
            return
        found = [thing for thing, _ in contents(connection)]
    reason = (
        f"The name typed is {typed_name!r} and the database's is {name!r}."
        if typed_name is not None
        else "It is neither on this machine nor Compose's, so its name must be typed."
    )
    raise ConfigurationError(
        f"Nothing was dropped in {describe(settings.url)}. {reason}\n"
        f"To drop {', '.join(found) or 'nothing, it is empty'}: `nox -s db_reset -- --yes-drop {name}`."
    )


def is_near(host: str, address: str) -> bool:
    """Whether a connection to this host, which had this address, is on a socket, on loopback, or to Compose's `db`."""
    if host == "db" or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def reset(engine: Engine, lock_timeout: float) -> list[str]:
    try:
        return reset_db(engine, lock_timeout=lock_timeout)
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise ConfigurationError(
            f"Nothing was dropped: another connection has held a lock on a table for {lock_timeout:g} s.\n"
            "End its transaction: `nox -s db_shell -- -c 'TABLE pg_stat_activity'` shows who it is."
        ) from error


if __name__ == "__main__":
    enter(main)
