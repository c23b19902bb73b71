"""What happens every day: jobs, and the log of usage, each in the order of its time."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import cycle, islice
from random import Random

from backend.models.models import JobStatus
from devtools.seeding.accounts import LEFT, PEOPLE, SIZES, Row, is_inactive
from devtools.seeding.plan import Plan, spread

JOBS, ENTRIES = 50, 1000
"""So many a unit of scale."""
LOGGED, KEPT = timedelta(days=90), timedelta(days=30)
"""How far the log goes back, and the queue's history."""
LEASE = timedelta(minutes=5)

# The numbers, within a unit, of a person's company and of themselves; None where the integration acted by itself. The
# first of a company do more than the last, and who has left does nothing.
_ACTIVE = [
    (company, sum(SIZES[:company]) + number)
    for company, size in enumerate(SIZES)
    for number in range(size)
    if company != LEFT and not is_inactive(sum(SIZES[:company]) + number + 1)
]
_FIRST = [(company, user) for company, user in _ACTIVE if user - sum(SIZES[:company]) < 3]  # noqa: PLR2004  above
_ALONE = [(company, None) for company in range(len(SIZES)) if company != LEFT]
# As many as six bits choose from.
_ACTORS: list[tuple[int, int | None]] = list(islice(cycle([*_ACTIVE, *_FIRST, *_ALONE]), 64))

_JOB_TYPES = (
    "sync_projects", "sync_users", "sync_vendors", "sync_commitments", "import_daily_logs", "import_drawings",
    "export_rfis", "export_submittals",
)  # fmt: skip
_ERRORS = (
    "procore: 429 Too Many Requests",
    "procore: 503 Service Unavailable",
    "procore: 403 Forbidden: the tool is not enabled for this project",
    "the connection is lost: reauthorization is required",
)

# What becomes of each ten jobs that are over, and of the last eight of a unit, which are not.
_OVER = (*[JobStatus.SUCCEEDED] * 8, JobStatus.FAILED, JobStatus.CANCELLED)
_LIVE_JOBS = 8

JOB_COLUMNS = (
    "id", "company_id", "created_by_id", "job_type", "status", "priority", "payload", "dedupe_key", "idempotency_key",
    "attempts", "max_attempts", "run_at", "locked_by", "lease_expires_at", "last_error", "started_at", "finished_at",
    "created_at",
)  # fmt: skip


def job_queue(plan: Plan) -> Iterator[Row]:
    random = plan.random("job_queue")
    over = plan.scale * (JOBS - _LIVE_JOBS)
    live_since = plan.until - timedelta(hours=1)
    number = 0
    for at in spread(over, plan.until - KEPT, live_since, random):
        number += 1
        yield _job(plan, number, at, _finished(random, number, at), random)
    # The last hour, in equal steps: rarely is so much under way at once.
    live = plan.scale * _LIVE_JOBS
    step = timedelta(minutes=55) / live
    for place in range(live):
        number += 1
        at = live_since + place * step
        yield _job(plan, number, at, _under_way(random, place, at, plan.until), random)


# status, attempts, run_at, locked_by, lease_expires_at, last_error, started_at, finished_at
_State = tuple[
    JobStatus, int, datetime, str | None, datetime | None, str | None, datetime | None, datetime | None
]


def _finished(random: Random, number: int, at: datetime) -> _State:
    status = _OVER[number % len(_OVER)]
    drawn = random.getrandbits(40)
    started = at + timedelta(milliseconds=20 + (drawn & 0xFFF))
    finished = started + timedelta(milliseconds=80 + (drawn >> 12 & 0x7FFF))
    if status is JobStatus.SUCCEEDED:
        return status, 1 + (drawn >> 27 & 15 == 0), at, None, None, None, started, finished
    if status is JobStatus.FAILED:
        return status, 5, at, None, None, _ERRORS[drawn >> 27 & 3], started, finished + timedelta(minutes=31)
    return status, 0, at, None, None, None, None, started


def _under_way(random: Random, place: int, at: datetime, now: datetime) -> _State:
    kind = place % 4
    if kind == 0:  # waits for its turn
        return JobStatus.QUEUED, 0, at, None, None, None, None, None
    if kind == 1:  # has failed, and will be tried again
        again = now + timedelta(seconds=30 + random.getrandbits(8))
        return JobStatus.QUEUED, 2, again, None, None, _ERRORS[random.getrandbits(1)], at, None
    worker = f"worker-{1 + random.getrandbits(2)}"
    heartbeat = now - timedelta(seconds=random.getrandbits(6))
    return JobStatus.RUNNING, kind - 1, at, worker, heartbeat + LEASE, None, at, None


def _job(plan: Plan, number: int, at: datetime, state: _State, random: Random) -> Row:
    status, attempts, run_at, locked_by, lease, error, started, finished = state
    drawn = random.getrandbits(64)
    unit = (drawn & 0xFFFFFFFF) * plan.scale >> 32
    company, user = _ACTORS[drawn >> 32 & 63]
    kind = _JOB_TYPES[drawn >> 38 & 7]
    project = 1_000_000 + number * 7
    return (
        number, unit * len(SIZES) + company + 1, None if user is None else unit * PEOPLE + user + 1, kind, status.value,
        (0, 0, 0, 10)[drawn >> 41 & 3], json.dumps({"project_id": project, "full": drawn >> 43 & 7 == 0}),
        f"{kind}:{project}" if drawn >> 46 & 3 else None, None if user is None else f"request-{number:x}",
        attempts, 5, run_at, locked_by, lease, error, started, finished, at,
    )  # fmt: skip


USAGE_COLUMNS = (
    "id", "company_id", "user_id", "action", "quantity", "details", "idempotency_key", "created_at",
)  # fmt: skip

# An action, how often it is seen of 32, what it may count at most, and whether it changes something, by a key.
_ACTIONS = (
    ("project.read", 9, 1, False), ("rfi.read", 5, 1, False), ("drawing.download", 4, 1, False),
    ("daily_log.create", 3, 1, True), ("submittal.update", 3, 1, True), ("rfi.create", 2, 1, True),
    ("photo.upload", 3, 15, True), ("budget.export", 1, 4000, False), ("project.sync", 2, 250, True),
)  # fmt: skip
_VARIANTS = 2048


def usage_logs(plan: Plan) -> Iterator[Row]:
    """Yield the log. A million rows go through here, so each takes one draw, and its details are made beforehand."""
    random = plan.random("usage_logs")
    details = [_details(random) for _ in range(_VARIANTS)]
    draw, scale, companies = random.getrandbits, plan.scale, len(SIZES)
    instants = spread(scale * ENTRIES, plan.until - LOGGED, plan.until, plan.random("usage_logs/times"))
    for number, at in enumerate(instants, 1):
        drawn = draw(64)
        unit = (drawn & 0xFFFFFFFF) * scale >> 32
        company, user = _ACTORS[drawn >> 32 & 63]
        action, quantity, said, is_change = details[drawn >> 38 & _VARIANTS - 1]
        yield (
            number, unit * companies + company + 1, None if user is None else unit * PEOPLE + user + 1, action,
            quantity, said, f"{number:x}-{drawn >> 49:04x}" if is_change else None, at,
        )  # fmt: skip


def _details(random: Random) -> tuple[str, int, str, bool]:
    drawn = random.getrandbits(64)
    action, _, most, is_change = _BY_WEIGHT[drawn & 31]
    said: dict[str, object] = {"project_id": 1_000_000 + (drawn >> 5 & 0xFFF) * 7}
    if drawn >> 17 & 15:
        said |= {"outcome": "succeeded", "milliseconds": 15 + (drawn >> 21 & 511)}
        return action, 1 + (drawn >> 30 & 0xFFFF) % most, json.dumps(said), is_change
    said |= {"outcome": "failed", "status": (403, 404, 429, 503)[drawn >> 21 & 3]}
    return action, 0, json.dumps(said), is_change


_BY_WEIGHT = [action for action in _ACTIONS for _ in range(action[1])]
