"""Fill the configured database with believable rows: `nox -s db_seed`, which also finds the database."""

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from backend.config import load_settings
from backend.database import schema_state
from backend.errors import UserError
from backend.scripts.locks import add_lock_timeout, telling_who_holds
from backend.scripts.safety import DestructiveAction, refuse_production, refuse_unless_ours
from backend.scripts.terminal import engine_for, say
from backend.startup import describe, wait_for_database
from backend.utc import format_utc, parse_utc
from devtools.seeding.loading import TABLES, Advance, NotEmptyError, seed, tidy
from devtools.seeding.plan import UNTIL, Plan
from devtools.terminal import enter

LARGEST_SCALE = 1_000_000
YEARS = (2000, 9000)
QUIET_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    # Of a COPY whose connection is lost it warns in its own words; ours follow.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    options = parse(arguments)
    plan = Plan(options.seed, options.scale, options.until)
    settings = load_settings()
    refuse_production(settings, "nothing is made up in a production database. Nothing was written.")
    all_the_same = again(plan, *(["--replace"] if options.replace else []), "--yes-seed")
    what = "the rows that are there by made-up ones" if options.replace else "made-up rows"
    deed = DestructiveAction(
        "Nothing was written", "replace" if options.replace else "write", all_the_same, what
    )
    with engine_for(settings) as engine:
        wait_for_database(engine, settings.database_wait_seconds, tell=say)
        refuse_unless_ours(engine, settings, deed, typed_name=options.yes_seed)
        refuse_unless_at_head(engine)
        began = time.perf_counter()
        with telling_who_holds(engine, deed.undone, options.lock_timeout):
            written = write(engine, plan, options)
        tidy_up(engine)
        seconds = time.perf_counter() - began
    rows = sum(written.values())
    each = ", ".join(f"{number:,} {name}" for name, number in written.items())
    place = describe(settings.url)
    say(f"Database {place} seeded: {each}; {rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} a second.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="db_seed",
        description="Fill the six tables with believable rows, which follow from the seed, the scale and the end to "
        "the byte: of the configured database where it is on this machine, or Compose's, and its own mark says that it "
        "is one of development or test; elsewhere its name must be typed. Production is never seeded. All of it is one "
        "transaction, for the end of which others wait. Addresses are at example.com, and there are no passwords and "
        "no tokens.",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another data set (%(default)s)")
    parser.add_argument(
        "--scale",
        type=scale,
        default=1,
        metavar="N",
        help="so many times 6 companies with 40 people, 50 jobs and 1,000 entries of usage (%(default)s)",
    )
    parser.add_argument(
        "--until",
        type=instant,
        default=UNTIL,
        metavar="INSTANT",
        help=f"when all of it has happened ({format_utc(UNTIL)})",
    )
    parser.add_argument(
        "--replace", action="store_true", help="empty the six tables first, in the same transaction"
    )
    parser.add_argument("--yes-seed", metavar="NAME", help="the database's name, to write to it all the same")
    add_lock_timeout(parser)
    return parser.parse_args(arguments)


def scale(text: str) -> int:
    number = int(text)
    if not 1 <= number <= LARGEST_SCALE:
        raise argparse.ArgumentTypeError(f"it is {number}, and must be from 1 to {LARGEST_SCALE:,}")
    return number


def instant(text: str) -> datetime:
    try:
        at = parse_utc(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    first, last = YEARS
    if not datetime(first, 1, 1, tzinfo=UTC) <= at < datetime(last, 1, 1, tzinfo=UTC):
        raise argparse.ArgumentTypeError(f"it must lie in the years from {first} to {last - 1}")
    return at


def again(plan: Plan, *more: str) -> str:
    """Return the command that makes the same rows, with more options."""
    usual = Plan()
    asked = {"seed": plan.seed, "scale": plan.scale, "until": format_utc(plan.until)}
    given = [
        f"--{name} {value}" for name, value in asked.items() if getattr(plan, name) != getattr(usual, name)
    ]
    return " ".join(("nox -s db_seed --", *given, *more))


def refuse_unless_at_head(engine: Engine) -> None:
    with engine.connect() as connection:
        state = schema_state(connection)
    if state.is_at_head:
        return
    place = describe(engine.url)
    if state.is_ahead:
        raise UserError(
            f"Nothing was written: the schema of {place} is at revision {state.current}, which this code does not "
            "know.\nCheck out the code that made it, or build the database anew with `nox -s db_reset`."
        )
    where = f"at revision {state.current}, behind {state.head}" if state.current else "not there yet"
    raise UserError(
        f"Nothing was written: the schema of {place} is {where}.\nBring it to head with `nox -s db_init`."
    )


def write(engine: Engine, plan: Plan, options: argparse.Namespace) -> dict[str, int]:
    """Write the rows, with progress where somebody watches; refusals become a plain line."""
    place = describe(engine.url)
    rows = plan.scale * sum(table.count for table in TABLES)
    try:
        with progress(rows) as advance:
            return seed(
                engine, plan, replace=options.replace, lock_timeout=options.lock_timeout, advance=advance
            )
    except NotEmptyError as error:
        there = ", ".join(f"{number:,} {name}" for name, number in error.counts.items())
        raise UserError(
            f"Nothing was written: {place} has rows already: {there}.\n"
            f"To empty those tables first: `{again(plan, '--replace')}`; to drop all that there is: `nox -s db_reset`."
        ) from None
    except DBAPIError as error:
        if not (options.replace and isinstance(error.orig, psycopg.errors.FeatureNotSupported)):
            raise
        raise UserError(
            f"Nothing was written: a table that is not ours holds on to the rows. {error.orig.diag.message_detail}\n"
            "Empty that first, by `nox -s db_shell`, or drop all that there is: `nox -s db_reset`."
        ) from error
    except psycopg.Error as error:
        # COPY goes past SQLAlchemy, and so do its refusals.
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"Nothing was written: the database at {place} refused: {first}.") from error


class Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} a second")


@contextmanager
def progress(rows: int) -> Iterator[Advance]:
    """Lend what is told of the rows, and show how far they are at a terminal once that has taken a second."""
    shown = Progress(
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
        BarColumn(),
        Speed(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not Console(stderr=True).is_terminal,
    )
    task = shown.add_task("", total=rows)
    began = time.monotonic()

    def advance(more: int) -> None:
        shown.advance(task, more)
        if not shown.live.is_started and time.monotonic() - began > QUIET_SECONDS:
            shown.start()

    try:
        yield advance
    finally:
        shown.stop()


def tidy_up(engine: Engine) -> None:
    try:
        tidy(engine)
    except KeyboardInterrupt:
        say("The rows are written. PostgreSQL will gather its statistics of them by itself.")
        raise


if __name__ == "__main__":
    enter(main)
