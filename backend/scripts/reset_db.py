"""Drop everything in the database and build it anew: `nox -s db_reset`, or `python3 backend/scripts/reset_db.py`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from backend.scripts.by_path import use_environment

    use_environment()

from ipaddress import ip_address

from sqlalchemy import URL, Engine
from sqlalchemy.exc import OperationalError

from backend.config import AppEnv, ConfigurationError, Settings, load_settings
from backend.database import contents, reset_db
from backend.scripts.terminal import engine_for, say
from backend.startup import describe, wait_for_database

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
        dropped = reset(engine)
    for name in dropped:
        say(f"  dropped {name}")
    say(f"Database {describe(settings.url)} reset: {len(dropped)} things dropped, and built anew.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="reset_db",
        description="Drop everything in the configured database, known to the models or not, and build it anew. "
        "Only a development or test database on this machine, or Compose's, is dropped without more ado.",
    )
    parser.add_argument("--yes-drop", metavar="NAME", help="the database's name, to drop it wherever it is")
    return parser.parse_args(arguments)


def refuse_unless_ours(engine: Engine, settings: Settings, *, typed_name: str | None) -> None:
    """Raise ConfigurationError, which lists what would have gone, unless the database is near or its name was typed."""
    name = settings.url.database
    if typed_name == name or (typed_name is None and is_near(settings.url)):
        return
    with engine.connect() as connection:
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


def is_near(url: URL) -> bool:
    """Whether the database is on loopback, on a socket, or Compose's `db`."""
    hosts = url.query.get("host", url.host) or ""
    for host in (hosts,) if isinstance(hosts, str) else hosts:
        if host in {"", "localhost", "db"} or host.startswith("/"):
            continue
        try:
            if not ip_address(host).is_loopback:
                return False
        except ValueError:
            return False
    return True


def reset(engine: Engine) -> list[str]:
    try:
        return reset_db(engine)
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise ConfigurationError(
            "Nothing was dropped: another connection has held a lock on a table for 5 s.\n"
            "End its transaction; `SELECT pid, state, query FROM pg_stat_activity` in `nox -s db_shell` shows it."
        ) from error


if __name__ == "__main__":
    main()
