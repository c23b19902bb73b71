"""The rows of a data set: the same everywhere, of every kind, believable, and made one at a time."""

import subprocess
import sys
import tracemalloc
from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest

from backend.config import ROOT
from backend.models.models import Base
from devtools.seeding import accounts, activity
from devtools.seeding.loading import TABLES, Table
from devtools.seeding.names import domain
from devtools.seeding.plan import Plan, spread

PLANS = [Plan(), Plan(seed=7), Plan(scale=3), Plan(until=datetime(2030, 2, 5, 9, 30, 0, 1, tzinfo=UTC))]
IDS = ["default", "another seed", "three units", "another end"]


def digest(plan: Plan) -> str:
    found = sha256()
    for table in TABLES:
        for row in table.rows(plan):
            found.update(repr(row).encode())
    return found.hexdigest()[:16]


def rows(table: str, plan: Plan) -> list[dict[str, Any]]:
    [found] = [each for each in TABLES if each.name == table]
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows(plan)]


def test_rows_are_what_they_always_were() -> None:
    """On every Python and machine. Whoever changes what is made says so here, and in the changelog."""
    assert [digest(plan) for plan in PLANS] == [
        "ad8f3bff91ce6f33",
        "ffa441841b9790e2",
        "2d23e45b6a2f611b",
        "c2fa4139c83f94c7",
    ]


def test_rows_do_not_depend_on_the_process() -> None:
    code = f"from {__name__} import digest, PLANS; print(digest(PLANS[0]))"
    said = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": "4711", "TZ": "Asia/Tokyo"}, text=True
    )

    assert said.strip() == digest(PLANS[0])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_is_given_and_the_size_is_linear(table: Table) -> None:
    assert set(table.columns) == set(Base.metadata.tables[table.name].columns.keys())
    for scale in (1, 2, 7):
        assert sum(1 for _ in table.rows(Plan(scale=scale))) == scale * table.count


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_another_seed_has_other_rows(table: Table) -> None:
    assert list(table.rows(PLANS[0])) != list(table.rows(PLANS[1]))


@pytest.mark.parametrize("plan", PLANS, ids=IDS)
def test_all_has_happened_by_the_end_and_nothing_before_its_cause(plan: Plan) -> None:
    ahead = {"expires_at", "lease_expires_at", "rate_limit_reset_at", "run_at"}
    begun = {row["id"]: row["created_at"] for row in rows("companies", plan)}
    joined = {row["id"]: row["created_at"] for row in rows("users", plan)}
    for table in TABLES:
        for row in rows(table.name, plan):
            times = {name: value for name, value in row.items() if isinstance(value, datetime)}
            assert all(value <= plan.until for name, value in times.items() if name not in ahead), row
            assert row["created_at"] <= row.get("updated_at", plan.until)
            assert begun.get(row.get("company_id"), plan.until - accounts.SINCE) <= row["created_at"]
            for person in ("user_id", "created_by_id", "connected_by_id"):
                assert joined.get(row.get(person), row["created_at"]) <= row["created_at"], row


@pytest.mark.parametrize("plan", PLANS, ids=IDS)
def test_jobs_times_fit_their_states(plan: Plan) -> None:
    for job in rows("job_queue", plan):
        assert job["created_at"] <= (job["started_at"] or job["run_at"])
        assert (job["started_at"] or job["created_at"]) <= (job["finished_at"] or plan.until)
        if job["status"] == "running":
            assert job["lease_expires_at"] > plan.until
            assert job["attempts"] >= 1
        if job["status"] == "failed":
            assert job["attempts"] == job["max_attempts"]
            assert job["last_error"]


def test_nobody_can_use_what_is_there() -> None:
    plan = Plan(scale=50)

    assert all(user["email"].endswith(".example.com") for user in rows("users", plan))
    assert {user["password_hash"] for user in rows("users", plan)} == {None}
    connections = rows("procore_connections", plan)
    assert {(each["access_token"], each["status"]) for each in connections} == {
        (accounts.NO_TOKEN, "active"),
        (None, "reauth_required"),
        (None, "revoked"),
    }
    assert {each["refresh_token"] for each in connections} == {None}


def test_names_and_addresses_are_each_of_one_only() -> None:
    # So many that the names are used up twice and get a region, and then a number.
    plan = Plan(scale=13_000)
    names, domains = set(), set()
    for _, name, *_ in accounts.companies(plan):
        assert name == name.strip()
        names.add(name)
        domains.add(domain(name))
    assert len(names) == len(domains) == plan.scale * len(accounts.SIZES)

    emails = [user["email"] for user in rows("users", Plan(scale=500))]
    assert len({email.lower() for email in emails}) == len(emails)
    assert all(email.isascii() and email == email.lower() and "--" not in email for email in emails)


def test_log_is_busy_in_working_hours_and_in_the_order_of_time() -> None:
    entries = rows("usage_logs", Plan(scale=20))
    times = [entry["created_at"] for entry in entries]
    days = Counter(at.weekday() for at in times)

    assert all(earlier <= later for earlier, later in pairwise(times))
    assert sum(12 <= at.hour < 24 for at in times) > 0.85 * len(times)
    assert min(days[day] for day in range(5)) > 3 * days[5] > 3 * days[6] > 0
    outcomes = Counter("failed" if '"failed"' in entry["details"] else "succeeded" for entry in entries)
    assert 0.03 < outcomes["failed"] / len(entries) < 0.1
    busiest = Counter(entry["user_id"] for entry in entries if entry["user_id"])
    assert busiest.most_common()[0][1] > 1.5 * busiest.most_common()[-1][1], "some do more than others"


def test_who_has_left_does_nothing_any_more() -> None:
    plan = Plan(scale=5)
    gone = {user["id"] for user in rows("users", plan) if not user["is_active"]}
    closed = {company["id"] for company in rows("companies", plan) if not company["is_active"]}

    for table, person in (("usage_logs", "user_id"), ("job_queue", "created_by_id")):
        assert {row[person] for row in rows(table, plan)} & gone == set()
        assert {row["company_id"] for row in rows(table, plan)} & closed == set()


@pytest.mark.parametrize("count", [0, 1, 999, 100_000])
def test_instants_are_as_many_as_asked_for_and_within(count: int) -> None:
    start = datetime(2024, 2, 28, tzinfo=UTC)
    end = start + timedelta(days=7)

    found = list(spread(count, start, end, Plan().random("test")))

    assert len(found) == count
    assert all(start <= at < end for at in found)
    assert found == sorted(found)


@pytest.mark.parametrize("rows", [activity.usage_logs, activity.job_queue, accounts.users])
def test_rows_are_made_one_at_a_time(rows: Any) -> None:  # noqa: ANN401  a generator of rows
    def peak(scale: int) -> int:
        tracemalloc.start()
        deque(rows(Plan(scale=scale)), maxlen=0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # What is made once in a process, and kept, is there after the first time.
    peak(1)

    assert peak(20) < peak(1) + 50_000
