"""Settings over HTTP: changes do not overwrite each other, and preferences are returned unchanged."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from backend.schemas.fields import DEEPEST_PREFERENCES, LARGEST_NUMBER, LARGEST_PREFERENCES
from backend.tests.test_api_companies import create, pointers
from backend.tests.test_api_users import create_user


@pytest.fixture
def user(client: TestClient) -> str:
    return create_user(client, create(client))


@pytest.fixture
def location(client: TestClient, user: str) -> str:
    response = client.post(f"{user}/settings", json={})
    assert response.status_code == 201, response.text
    return response.headers["location"]


def wait_for_a_lock(engine: Engine) -> None:
    """Return once another session of this database waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + 10
    with engine.connect() as observer:
        while not observer.scalar(waiting):
            # Statistics do not change within a transaction.
            observer.rollback()
            assert time.monotonic() < deadline, "no session waited for a lock"


def test_created_settings_have_defaults_and_are_read_at_their_location(client: TestClient, user: str) -> None:
    response = client.post(f"{user}/settings", json={})
    shown: dict[str, Any] = response.json()

    assert response.headers["location"] == f"{user}/settings"
    assert shown == {
        "user_id": int(user.rpartition("/")[2]),
        "timezone": "UTC",
        "email_notifications": True,
        "preferences": {},
        "version": 1,
        "created_at": shown["created_at"],
        "updated_at": shown["created_at"],
    }
    assert client.get(response.headers["location"]).json() == shown


def test_second_settings_are_a_conflict(client: TestClient, location: str) -> None:
    response = client.post(location, json={"timezone": "Europe/Paris"})

    assert (response.status_code, response.json()["type"]) == (409, "/problems/settings-exist")
    assert client.get(location).json()["timezone"] == "UTC"


def test_settings_created_while_another_creates_them_are_a_conflict(
    client: TestClient, user: str, engine: Engine
) -> None:
    """Both saw no settings; the second INSERT waits for the first, then violates the primary key."""
    insert = text("INSERT INTO user_settings (user_id) VALUES (:user)")
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        first.execute(insert, {"user": int(user.rpartition("/")[2])})
        second = pool.submit(client.post, f"{user}/settings", json={})
        wait_for_a_lock(engine)
        first.commit()
        response = second.result()

    assert (response.status_code, response.json()["type"]) == (409, "/problems/settings-exist")


def test_missing_settings_are_not_found(client: TestClient, user: str) -> None:
    assert client.get(f"{user}/settings").status_code == 404
    assert client.patch(f"{user}/settings", json={"version": 1}).status_code == 404


def test_another_companys_settings_are_not_found(client: TestClient, location: str) -> None:
    other = create(client, "Other")
    foreign = f"{other}/users/{location.split('/')[-2]}/settings"

    assert client.get(foreign).status_code == 404
    assert client.patch(foreign, json={"version": 1, "timezone": "Europe/Paris"}).status_code == 404
    assert client.post(foreign, json={}).status_code == 404
    assert client.get(f"{other}/user-settings").json()["items"] == []
    assert client.get(location).json()["version"] == 1


def test_each_change_raises_the_version(client: TestClient, location: str) -> None:
    for version, timezone in enumerate(["Europe/Berlin", "Asia/Kathmandu"], start=1):
        changed = client.patch(location, json={"version": version, "timezone": timezone}).json()
        assert (changed["version"], changed["timezone"]) == (version + 1, timezone)
        assert client.get(location).json() == changed


@pytest.mark.parametrize("change", [{}, {"timezone": "UTC"}])
def test_change_without_effect_keeps_the_version(
    client: TestClient, location: str, change: dict[str, str]
) -> None:
    before = client.get(location).json()

    assert client.patch(location, json={"version": 1, **change}).json() == before


@pytest.mark.parametrize("version", [1, 3, LARGEST_NUMBER])
def test_change_from_another_version_is_a_conflict(client: TestClient, location: str, version: int) -> None:
    client.patch(location, json={"version": 1, "timezone": "Europe/Berlin"})
    response = client.patch(location, json={"version": version, "timezone": "Europe/Paris"})

    assert (response.status_code, response.json()["type"]) == (409, "/problems/stale-version")
    assert "Read it again" in response.json()["detail"]
    assert client.get(location).json()["timezone"] == "Europe/Berlin"


def test_change_that_waited_for_another_is_a_conflict(
    client: TestClient, location: str, engine: Engine
) -> None:
    """Both have read version 1; the second UPDATE waits for the row lock of the first, and finds version 2."""
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        first.execute(text("UPDATE user_settings SET timezone = 'Europe/Berlin', version = 2"))
        second = pool.submit(client.patch, location, json={"version": 1, "timezone": "Europe/Paris"})
        wait_for_a_lock(engine)
        first.commit()
        response = second.result()

    assert (response.status_code, response.json()["type"]) == (409, "/problems/stale-version")
    assert client.get(location).json()["timezone"] == "Europe/Berlin"


@pytest.mark.parametrize(
    "timezone", ["Mars/Base", "europe/berlin", "+02:00", "EST5EDT,M3.2.0", "", "localtime", "../UTC"]
)
def test_invalid_timezone_is_refused(client: TestClient, user: str, timezone: str) -> None:
    body = json.dumps({"timezone": timezone})

    assert pointers(client, "POST", f"{user}/settings", body) == {"body/timezone"}


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    "preferences",
    [
        "null",
        "[]",
        '{"a": NaN}',
        '{"a": 1e400}',
        f'{{"a": {LARGEST_NUMBER + 1}}}',
        f'{{"a": {"9" * 4000}}}',
        '{"a": "nul \\u0000"}',
        '{"nul \\u0000": 1}',
        '{"a": ["lone \\ud800"]}',
        '{"\\udfff": 1}',
        nested(DEEPEST_PREFERENCES + 1),
        f'{{"a": "{"x" * LARGEST_PREFERENCES}"}}',
        f'{{"a": "{"ü" * (LARGEST_PREFERENCES // 2)}"}}',
    ],
    ids=lambda text: text[:20],
)
def test_preferences_that_jsonb_cannot_store_are_refused(
    client: TestClient, user: str, preferences: str
) -> None:
    body = f'{{"preferences": {preferences}}}'

    assert pointers(client, "POST", f"{user}/settings", body) == {"body/preferences"}


def test_deepest_nesting_is_stored(client: TestClient, location: str) -> None:
    preferences = json.loads(nested(DEEPEST_PREFERENCES))
    response = client.patch(location, json={"version": 1, "preferences": preferences})

    assert response.json()["preferences"] == preferences


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
NUMBERS = st.integers(-LARGEST_NUMBER, LARGEST_NUMBER) | st.floats(-1e15, 1e15, allow_nan=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(preferences=st.dictionaries(TEXTS, VALUES, max_size=4))
def test_preferences_are_returned_unchanged(
    client: TestClient, location: str, preferences: dict[str, object]
) -> None:
    version = client.get(location).json()["version"]
    response = client.patch(location, json={"version": version, "preferences": preferences})

    assert response.status_code == 200, response.text
    assert client.get(location).json()["preferences"] == preferences


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ('{"timezone": "UTC"}', {"body/version"}),
        ('{"version": 0}', {"body/version"}),
        ('{"version": true}', {"body/version"}),
        ('{"version": "1"}', {"body/version"}),
        ('{"version": 9007199254740992}', {"body/version"}),
        ('{"version": 1.5}', {"body/version"}),
        ('{"version": 1, "timezone": null}', {"body/timezone"}),
        ('{"version": 1, "preferences": null}', {"body/preferences"}),
        ('{"version": 1, "user_id": 3}', {"body/user_id"}),
    ],
)
def test_error_points_at_each_invalid_field_of_a_change(
    client: TestClient, location: str, body: str, where: set[str]
) -> None:
    assert pointers(client, "PATCH", location, body) == where
