"""Companies, their people with their settings, and their connections to Procore.

A unit of scale has six companies of unlike size with forty people, so that each state of each row is there from the
first unit on, and everybody's company follows from their number: nothing is kept in memory.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random

from backend.models.models import ConnectionStatus, Environment, GrantType, Role
from devtools.seeding.names import company_name, domain, mailbox
from devtools.seeding.plan import Plan, spread

Row = tuple[object, ...]

SIZES = (11, 4, 8, 3, 9, 5)
PEOPLE = sum(SIZES)
LEFT = 3
"""Which company of a unit is a customer no more."""
SINCE, LATEST = timedelta(days=730), timedelta(days=130)
"""The first company signs up so long before the end, and the last; by the time that is logged, all are there."""
ACCESS_TOKEN_LIFETIME = timedelta(seconds=5400)  # Procore's

# An active connection must have a token, and a token is ciphertext: this is none, so that whatever decrypts it must
# fail before it could be sent. There is no refresh token, which Procore would take once.
NO_TOKEN = "seeded: no token"  # noqa: S105  it is none

# The ids of Procore's newer zones begin at 2**49.
_PROCORE_COMPANIES, _PROCORE_USERS, _APART = 598_134_325_000_000, 598_134_325_400_000, 997

TIMEZONES = (
    "America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles", "America/Phoenix",
    "America/Toronto", "Europe/London", "UTC",
)  # fmt: skip

_PRODUCTION, _SANDBOX = Environment.PRODUCTION, Environment.SANDBOX
_CODE, _CLIENT = GrantType.AUTHORIZATION_CODE, GrantType.CLIENT_CREDENTIALS
_ACTIVE, _REAUTH, _REVOKED = (
    ConnectionStatus.ACTIVE,
    ConnectionStatus.REAUTH_REQUIRED,
    ConnectionStatus.REVOKED,
)
# Of the companies of a unit: what they have, oldest first.
_CONNECTIONS = (
    ((_PRODUCTION, _CODE, _REVOKED), (_PRODUCTION, _CODE, _ACTIVE), (_SANDBOX, _CLIENT, _ACTIVE)),
    ((_PRODUCTION, _CODE, _ACTIVE),),
    ((_PRODUCTION, _CODE, _REAUTH),),
    ((_PRODUCTION, _CODE, _REVOKED),),
    ((_SANDBOX, _CODE, _ACTIVE),),
    ((_PRODUCTION, _CLIENT, _ACTIVE),),
)
CONNECTIONS = sum(map(len, _CONNECTIONS))

COMPANY_COLUMNS = ("id", "name", "is_active", "created_at", "updated_at")


def companies(plan: Plan) -> Iterator[tuple[int, str, bool, datetime, datetime]]:
    random = plan.random("companies")
    start = random.getrandbits(32)
    count = plan.scale * len(SIZES)
    for number, at in enumerate(spread(count, plan.until - SINCE, plan.until - LATEST, random)):
        has_left = number % len(SIZES) == LEFT
        changed = at + timedelta(days=30, seconds=random.getrandbits(21)) if has_left else at
        yield number + 1, company_name(number, start), not has_left, at, changed


USER_COLUMNS = (
    "id", "company_id", "email", "password_hash", "role", "is_active", "created_at", "updated_at",
)  # fmt: skip


def users(plan: Plan) -> Iterator[tuple[int, int, str, None, str, bool, datetime, datetime]]:
    """Yield each company's people: one owns it, every fifth administers it. Nobody has a password to sign in with."""
    random = plan.random("users")
    user = 0
    for company, name, is_customer, founded, _ in companies(plan):
        where, start = domain(name), random.getrandbits(16)
        at = founded
        for number in range(SIZES[(company - 1) % len(SIZES)]):
            user += 1
            role = Role.OWNER if number == 0 else Role.ADMIN if number % 5 == 1 else Role.MEMBER
            has_left = is_inactive(user)
            changed = at + timedelta(days=20, seconds=random.getrandbits(20)) if has_left else at
            yield (
                user, company, f"{mailbox(number, start)}@{where}", None, role.value, is_customer and not has_left, at,
                changed,
            )  # fmt: skip
            at += timedelta(seconds=3600 + random.getrandbits(17))


def is_inactive(user: int) -> bool:
    """Whether they are with their company no more: one in forty, who is neither its first nor in the smallest."""
    return user % PEOPLE == 9  # noqa: PLR2004  any would do


SETTINGS_COLUMNS = (
    "user_id", "timezone", "email_notifications", "preferences", "version", "created_at", "updated_at",
)  # fmt: skip


def user_settings(plan: Plan) -> Iterator[Row]:
    """Yield the settings of three people in four; the others never opened the page."""
    random = plan.random("user_settings")
    for user, _, _, _, _, _, joined, _ in users(plan):
        if user % 4 == 0:
            continue
        drawn = random.getrandbits(32)
        preferences = {
            "theme": ("light", "dark", "system")[drawn % 3],
            "rows_per_page": (25, 50, 100)[(drawn >> 4) % 3],
            "units": "metric" if drawn >> 8 & 7 == 0 else "imperial",
        }
        saved = joined + timedelta(seconds=60 + (drawn >> 12 & 0xFFFF))
        version = 1 + (drawn >> 28 & 3)
        changed = saved + timedelta(hours=version - 1, seconds=(version - 1) * (drawn & 1023))
        yield (
            user, TIMEZONES[drawn >> 11 & 7], bool(drawn >> 14 & 3), json.dumps(preferences), version, saved, changed,
        )  # fmt: skip


CONNECTION_COLUMNS = (
    "id", "company_id", "connected_by_id", "environment", "grant_type", "procore_company_id", "procore_user_id",
    "access_token", "refresh_token", "token_issued_at", "expires_at", "status", "last_refreshed_at", "last_error_code",
    "rate_limit_remaining", "rate_limit_reset_at", "revoked_at", "created_at", "updated_at",
)  # fmt: skip


def procore_connections(plan: Plan) -> Iterator[Row]:
    random = plan.random("procore_connections")
    connection, owner = 0, 1
    for company, _, _, founded, _ in companies(plan):
        kind = (company - 1) % len(SIZES)
        for number, (environment, grant, status) in enumerate(_CONNECTIONS[kind]):
            connection += 1
            made = founded + timedelta(days=1 + 7 * number, seconds=random.getrandbits(16))
            procore_company = _PROCORE_COMPANIES + company * _APART + random.getrandbits(8)
            yield (
                connection, company, None if kind == LEFT else owner, environment.value, grant.value, procore_company,
                None if grant is _CLIENT else _PROCORE_USERS + owner * _APART, *_state(plan, random, status, made),
            )  # fmt: skip
        owner += SIZES[kind]


def _state(plan: Plan, random: Random, status: ConnectionStatus, made: datetime) -> Row:
    """Return the values of a connection from `access_token` on."""
    issued = plan.until - timedelta(seconds=60 + random.getrandbits(12))
    revoked = made + timedelta(days=5, seconds=random.getrandbits(16))
    remaining = 3600 - random.getrandbits(11)
    if status is _REVOKED:
        return (None,) * 4 + (status.value,) + (None,) * 4 + (revoked, made, revoked)
    if status is _REAUTH:
        issued -= timedelta(days=3)
        ends = issued + ACCESS_TOKEN_LIFETIME
        return None, None, issued, ends, status.value, issued, "invalid_grant", None, None, None, made, issued
    resets = plan.until + timedelta(minutes=30)
    ends = issued + ACCESS_TOKEN_LIFETIME
    return NO_TOKEN, None, issued, ends, status.value, issued, None, remaining, resets, None, made, issued
