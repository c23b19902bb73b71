"""Fill the six tables with realistic rows; the same seed and scale give the same rows, including ids and times.

Addresses are at example.com, users have no password, and the tokens are not real. Everything is written in one
transaction. Runs without confirmation only on a local or Compose database that is marked as development or test, and
never on production.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TypeVar, cast

import psycopg
from rich.console import Console
from sqlalchemy import Connection, Engine, text

from backend.config import load_settings
from backend.database import schema_lock, schema_state
from backend.errors import UserError
from backend.models.models import ConnectionStatus, Environment, GrantType, JobStatus, Role
from backend.scripts.console import engine_for, say
from backend.scripts.safety import DestructiveAction, refuse_production, refuse_unless_ours
from backend.startup import describe, wait_for_database

UNTIL = datetime(2026, 10, 30, 21, tzinfo=UTC)
"""All seeded events happened before this time."""
SINCE = UNTIL - timedelta(days=730)
LARGEST_SCALE, LOCK_SECONDS = 100_000, 5
# One unit of scale has six companies of these sizes. The fourth company is not a customer any more.
USERS_OF_COMPANY = (11, 4, 8, 3, 9, 5)
COMPANIES, USERS, JOBS, LIVE_JOBS, ENTRIES = len(USERS_OF_COMPANY), sum(USERS_OF_COMPANY), 50, 8, 1000
FORMER_CUSTOMER = 3
# An active connection must have a token, which is ciphertext. This text is not, so decrypting it fails.
NO_TOKEN = "seeded: no token"  # noqa: S105  not a secret
TOKEN_LIFETIME = timedelta(seconds=5400)  # Procore's

# fmt: off
PLACES = (
    "Alder Creek", "Bayhollow", "Blue Mesa", "Cañon Vista", "Cedar Bluff", "Clearfork", "Dovetail", "Elkhorn Pass",
    "Granite Point", "Harborline", "Ironwood", "Juniper Flats", "Montréal Road", "Oakhaven", "Peña Blanca", "Yarrow",
)
TRADES = (
    "Builders", "Concrete", "Construction", "Electric", "Excavation", "Fire Protection", "Framing", "Interiors",
    "Masonry", "Mechanical", "Paving", "Plumbing", "Roofing", "Steel", "Tile & Stone", "Waterproofing", "Woodworks",
)
GIVEN = ("aisha", "ben", "chen", "dana", "hugo", "jorge", "mei", "noah", "omar", "priya", "rosa", "tess", "zoe")
FAMILY = ("abara", "becker", "dubois", "flores", "kaur", "lopez", "nguyen", "okafor", "patel", "singh", "walsh")
TIMEZONES = ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles", "Europe/London", "UTC")
JOB_TYPES = ("sync_projects", "sync_users", "sync_vendors", "import_daily_logs", "import_drawings", "export_rfis")
ERRORS = ("procore: 429 Too Many Requests", "procore: 503 Service Unavailable", "procore: 403 Forbidden")
ACTIONS = ("project.read", "rfi.read", "drawing.download", "daily_log.create", "submittal.update", "photo.upload")
# fmt: on

_ACTIVE, _REAUTH, _REVOKED = tuple(ConnectionStatus)
# The number of a company in its unit, with its connections, oldest first.
CONNECTIONS = (
    (0, Environment.PRODUCTION, GrantType.AUTHORIZATION_CODE, _REVOKED),
    (0, Environment.PRODUCTION, GrantType.AUTHORIZATION_CODE, _ACTIVE),
    (0, Environment.SANDBOX, GrantType.CLIENT_CREDENTIALS, _ACTIVE),
    (1, Environment.PRODUCTION, GrantType.AUTHORIZATION_CODE, _ACTIVE),
    (2, Environment.PRODUCTION, GrantType.AUTHORIZATION_CODE, _REAUTH),
    (FORMER_CUSTOMER, Environment.PRODUCTION, GrantType.AUTHORIZATION_CODE, _REVOKED),
    (4, Environment.SANDBOX, GrantType.AUTHORIZATION_CODE, _ACTIVE),
    (5, Environment.PRODUCTION, GrantType.CLIENT_CREDENTIALS, _ACTIVE),
)

Row = tuple[object, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Dice:
    """Random choices that are the same on every Python version: the manual promises that only for `random()`."""

    random: Random

    def below(self, limit: int) -> int:
        return int(self.random.random() * limit)

    def pick(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def within(self, **span: int) -> timedelta:
        return timedelta(microseconds=self.below(timedelta(**span) // timedelta(microseconds=1)))


def companies(scale: int, dice: Dice) -> Iterator[Row]:
    names = len(PLACES) * len(TRADES)
    for number in range(scale * COMPANIES):
        round_, index = divmod(number, names)
        place, trade = divmod(index * 101 % names, len(TRADES))  # 101 and `names` have no common factor
        name = f"{PLACES[place]} {TRADES[trade]}" + (f" {round_ + 1}" if round_ else "")
        has_left, at = number % COMPANIES == FORMER_CUSTOMER, SINCE + dice.within(days=600)
        yield number + 1, name, not has_left, at, at + (dice.within(days=60) if has_left else timedelta(0))


def users(scale: int, dice: Dice) -> Iterator[Row]:
    places = (
        (company, place)
        for company in range(scale * COMPANIES)
        for place in range(USERS_OF_COMPANY[company % COMPANIES])
    )
    for number, (company, place) in enumerate(places, 1):
        role = Role.OWNER if place == 0 else Role.ADMIN if place % 5 == 1 else Role.MEMBER
        email = f"{dice.pick(GIVEN)}.{dice.pick(FAMILY)}{number}@example.com"
        is_active = company % COMPANIES != FORMER_CUSTOMER and place < 10  # noqa: PLR2004  the eleventh user has left
        joined = SINCE + dice.within(days=630)
        yield number, company + 1, email, None, role.value, is_active, joined, joined


def user_settings(scale: int, dice: Dice) -> Iterator[Row]:
    """Yield settings for three users in four; the others have never changed their settings."""
    for user in range(1, scale * USERS + 1):
        if user % 4:
            preferences = {"theme": dice.pick(("light", "dark")), "rows_per_page": dice.pick((25, 50, 100))}
            at, version = SINCE + dice.within(days=700), 1 + dice.below(4)
            changed = at + (version - 1) * dice.within(days=7)
            yield user, dice.pick(TIMEZONES), dice.below(4) > 0, json.dumps(preferences), version, at, changed


def procore_connections(scale: int, dice: Dice) -> Iterator[Row]:
    for number in range(scale * len(CONNECTIONS)):
        unit, kind = divmod(number, len(CONNECTIONS))
        company, environment, grant, status = CONNECTIONS[kind]
        owner = unit * USERS + sum(USERS_OF_COMPANY[:company]) + 1
        made = UNTIL - timedelta(days=120 - 10 * kind) + dice.within(days=9)
        issued = (
            UNTIL - timedelta(hours=1) + dice.within(minutes=50) - timedelta(days=3 * (status is _REAUTH))
        )
        token = NO_TOKEN if status is _ACTIVE else None
        is_revoked = status is _REVOKED
        revoked = made + dice.within(days=5) if is_revoked else None
        dates = (None, None) if is_revoked else (issued, issued + TOKEN_LIFETIME)
        limit = (3600 - dice.below(2000), UNTIL + timedelta(minutes=30)) if token else (None, None)
        yield (
            number + 1, unit * COMPANIES + company + 1, owner, environment.value, grant.value, 2**49 + number,
            None if grant is GrantType.CLIENT_CREDENTIALS else 2**49 + owner, token, None, *dates, status.value,
            dates[0], "invalid_grant" if status is _REAUTH else None, *limit, revoked, made, revoked or issued,
        )  # fmt: skip


def job_queue(scale: int, dice: Dice) -> Iterator[Row]:
    """Yield jobs. Most of them have ended; the last few are queued or running."""
    total = scale * JOBS
    for number, at in enumerate(instants(total, 30, dice)):
        company, user = actor(scale, dice)
        kind, project = dice.pick(JOB_TYPES), 1_000_000 + number
        status, attempts, *rest = job_state(number * JOBS // total, number, at, dice)
        key = f"request-{number:x}" if user else None
        yield (
            number + 1, company, user, kind, status, dice.pick((0, 0, 10)), json.dumps({"project_id": project}),
            f"{kind}:{project}", key, attempts, 5, *rest, at,
        )  # fmt: skip


def job_state(turn: int, number: int, at: datetime, dice: Dice) -> Row:
    """Return status, attempts, run_at, locked_by, lease_expires_at, last_error, started_at and finished_at."""
    started = at + dice.within(seconds=5)
    finished, lease = started + dice.within(seconds=30), UNTIL + dice.within(minutes=5)
    if turn < JOBS - LIVE_JOBS:
        states: tuple[Row, ...] = (
            *[(JobStatus.SUCCEEDED, 1, at, None, None, None, started, finished)] * 8,
            (JobStatus.FAILED, 5, at, None, None, dice.pick(ERRORS), started, finished),
            (JobStatus.CANCELLED, 0, at, None, None, None, None, started),
        )
    else:
        states = (
            (JobStatus.QUEUED, 0, at, None, None, None, None, None),
            (JobStatus.QUEUED, 2, lease, None, None, ERRORS[0], started, None),  # it will be retried
            *[(JobStatus.RUNNING, 1, at, f"worker-{dice.below(4)}", lease, None, started, None)] * 2,
        )
    return states[number % len(states)]


def usage_logs(scale: int, dice: Dice) -> Iterator[Row]:
    details = [json.dumps({"project_id": 1_000_000 + each, "milliseconds": each}) for each in range(20, 999)]
    for number, at in enumerate(instants(scale * ENTRIES, 90, dice), 1):
        company, user = actor(scale, dice)
        action = dice.pick(ACTIONS)
        key = None if action.endswith("read") else f"usage-{number:x}"
        yield number, company, user, action, 1 + number % 7, details[number % len(details)], key, at


def instants(count: int, days: int, dice: Dice) -> Iterator[datetime]:
    """Yield instants of the last days in order, like those that an application writes."""
    start, step = UNTIL - timedelta(days=days), timedelta(days=days) / count
    for number in range(count):
        yield start + (number + dice.random.random()) * step


# The actors of a unit; a user of None is the integration itself. The company that has left has no actors.
ACTORS = [
    (company, user)
    for company in range(COMPANIES)
    if company != FORMER_CUSTOMER
    for user in (None, *range(sum(USERS_OF_COMPANY[:company]) + 1, sum(USERS_OF_COMPANY[: company + 1]) + 1))
]


def actor(scale: int, dice: Dice) -> tuple[int, int | None]:
    unit = dice.below(scale)
    company, user = dice.pick(ACTORS)
    return unit * COMPANIES + company + 1, None if user is None else unit * USERS + user


# The columns of each table, in the order of its rows; each table comes after those that it references.
COLUMNS = {
    "companies": "id name is_active created_at updated_at",
    "users": "id company_id email password_hash role is_active created_at updated_at",
    "user_settings": "user_id timezone email_notifications preferences version created_at updated_at",
    "procore_connections": (
        "id company_id connected_by_id environment grant_type procore_company_id procore_user_id "
        "access_token refresh_token token_issued_at expires_at status last_refreshed_at last_error_code "
        "rate_limit_remaining rate_limit_reset_at revoked_at created_at updated_at"
    ),
    "job_queue": (
        "id company_id created_by_id job_type status priority payload dedupe_key idempotency_key attempts "
        "max_attempts run_at locked_by lease_expires_at last_error started_at finished_at created_at"
    ),
    "usage_logs": "id company_id user_id action quantity details idempotency_key created_at",
}
MAKERS = (companies, users, user_settings, procore_connections, job_queue, usage_logs)
TABLES: dict[str, Callable[[int, Dice], Iterator[Row]]] = {make.__name__: make for make in MAKERS}
ALL = ", ".join(TABLES)


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    settings = load_settings()
    refuse_production(settings, "a production database is never seeded. Nothing was written.")
    what = "all rows of the six tables" if options.replace else "rows to the six tables"
    verb = "replace" if options.replace else "write"
    action = DestructiveAction(verb, "db_seed", "--yes-seed", arguments, what)
    began = time.perf_counter()
    with engine_for(settings.database_url) as engine:
        wait_for_database(engine, settings.database_wait_seconds, report=say)
        refuse_unless_ours(engine, action, typed_name=options.yes_seed)
        written = write(engine, options)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"VACUUM (ANALYZE, SKIP_LOCKED) {ALL}"))
    seconds = time.perf_counter() - began
    each = ", ".join(f"{number:,} {name}" for name, number in written.items())
    say(f"Database {describe(settings.database_url)} seeded: {each}, in {seconds:.1f} s.")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s db_seed --", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="another seed gives other rows (%(default)s)"
    )
    size = "N times 6 companies, 40 users, 50 jobs and 1,000 usage entries (%(default)s)"
    parser.add_argument("--scale", type=int, default=1, metavar="N", help=size)
    parser.add_argument("--replace", action="store_true", help="delete all rows of the six tables first")
    parser.add_argument("--yes-seed", metavar="NAME", help="the database's name, to write to it in any case")
    options = parser.parse_args(arguments)
    if not 1 <= options.scale <= LARGEST_SCALE:
        parser.error(f"--scale must be from 1 to {LARGEST_SCALE:,}")
    return options


def write(engine: Engine, options: argparse.Namespace) -> dict[str, int]:
    """Write all rows in one transaction and return how many each table has. Raises UserError."""
    place = describe(engine.url)
    with schema_lock(engine, lock_timeout=LOCK_SECONDS) as connection:
        if not (state := schema_state(connection)).is_at_head:
            raise UserError(
                f"Nothing was written: {place} is at revision {state.current or 'none'}, the code at {state.head}.\n"
                + ("Check out the code that made it." if state.is_ahead else "Run `nox -s db_init`.")
            )
        connection.execute(text(f"LOCK TABLE {ALL} IN SHARE ROW EXCLUSIVE MODE"))
        if options.replace:
            connection.execute(text(f"TRUNCATE {ALL}"))
        elif used := [name for name in TABLES if connection.scalar(text(f"SELECT EXISTS (TABLE {name})"))]:
            raise UserError(
                f"Nothing was written: {place} already has rows, in {', '.join(used)}.\n"
                f"`nox -s db_seed -- --seed {options.seed} --scale {options.scale} --replace` deletes them first."
            )
        with Console(stderr=True).status("Writing ...") as status:
            return {name: copy(connection, name, options, status.update) for name in TABLES}


def copy(connection: Connection, name: str, options: argparse.Namespace, show: Callable[[str], None]) -> int:
    columns = COLUMNS[name].split()
    # Each table has its own random numbers, so that a change to one table does not change the others.
    dice = Dice(Random(f"{options.seed}/{name}"))  # noqa: S311  no secrets
    number = 0
    cursor = cast("psycopg.Connection", connection.connection.driver_connection).cursor()
    try:
        with cursor.copy(f"COPY {name} ({', '.join(columns)}) FROM STDIN") as target:
            for number, row in enumerate(TABLES[name](options.scale, dice), 1):
                target.write_row(row)
                if number % 5000 == 0:
                    show(f"Writing {name}: {number:,} rows ...")
    except psycopg.Error as error:  # COPY uses psycopg directly, so SQLAlchemy does not wrap its errors
        connection.invalidate(error)
        raise UserError(f"Nothing was written: {str(error).partition(chr(10))[0]}.") from error
    if columns[0] == "id":
        # Unlike setval(), this is rolled back with the rows.
        connection.execute(text(f"ALTER TABLE {name} ALTER COLUMN id RESTART WITH {number + 1}"))
    return number
