"""Companies over HTTP, and the rules for every resource: bodies, ids, Location, the commit before the 201."""

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from starlette.types import Message, Receive, Scope, Send

from backend.schemas.fields import LARGEST_NUMBER
from backend.tests.application import make_app

COMPANIES = "/api/v1/companies"
JSON = {"content-type": "application/json"}


def create(client: TestClient, name: str = "Acme") -> str:
    response = client.post(COMPANIES, json={"name": name})
    assert response.status_code == 201, response.text
    return response.headers["location"]


def pointers(client: TestClient, method: str, path: str, body: str | bytes) -> set[str]:
    """Send a body that must be refused; return the pointers to its mistakes."""
    response = client.request(method, path, content=body, headers=JSON)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    errors = response.json()["errors"]
    # Pydantic's message for a plain ValueError is written for programmers, not for clients.
    assert not [error for error in errors if error["message"].startswith("Value error")]
    return {f"{error['location']}{error['pointer']}" for error in errors}


def test_created_company_is_returned_and_read_at_its_location(client: TestClient) -> None:
    response = client.post(COMPANIES, json={"name": "  Acme Bau GmbH "})
    company = response.json()

    assert response.status_code == 201
    assert response.headers["location"] == f"{COMPANIES}/{company['id']}"
    assert company == {
        "id": company["id"],
        "name": "Acme Bau GmbH",
        "is_active": True,
        "created_at": company["created_at"],
        "updated_at": company["created_at"],
    }
    assert len(company["created_at"]) == 27
    assert client.get(response.headers["location"]).json() == company


def test_row_is_committed_before_the_response_starts(engine: Engine) -> None:
    """A 201 is a promise. Another connection reads the row at the moment when the response starts."""
    application = make_app(engine)
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    seen: list[object] = []

    async def watch(scope: Scope, receive: Receive, send: Send) -> None:
        async def look(message: Message) -> None:
            if message["type"] == "http.response.start":
                with psycopg.connect(url) as connection:
                    seen.append(connection.execute("SELECT count(*) FROM companies").fetchone())
            await send(message)

        await application(scope, receive, look)

    create(TestClient(watch))

    assert seen == [(1,)]


def test_refused_request_is_rolled_back(client: TestClient, engine: Engine) -> None:
    location = create(client)
    assert client.post(f"{location}/users", json={"email": "one@example.com"}).status_code == 201
    assert client.post(f"{location}/users", json={"email": "ONE@example.com"}).status_code == 409

    assert len(client.get(f"{location}/users").json()["items"]) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "Other"}, ("Other", True)),
        ({"is_active": False}, ("Acme", False)),
        ({"name": "Other", "is_active": False}, ("Other", False)),
    ],
)
def test_change_sets_only_the_fields_that_are_sent(
    client: TestClient, change: dict[str, object], expected: tuple[str, bool]
) -> None:
    location = create(client)
    before = client.get(location).json()
    changed = client.patch(location, json=change)

    assert changed.status_code == 200
    after = changed.json()
    assert (after["name"], after["is_active"]) == expected
    assert after["created_at"] == before["created_at"]
    assert after["updated_at"] > before["updated_at"]
    assert client.get(location).json() == after


@pytest.mark.parametrize("change", [{}, {"name": "Acme"}])
def test_change_without_effect_leaves_updated_at_alone(client: TestClient, change: dict[str, str]) -> None:
    location = create(client)
    before = client.get(location).json()

    assert client.patch(location, json=change).json() == before


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("{}", {"body/name"}),
        ('{"name": ""}', {"body/name"}),
        ('{"name": " \\u00a0 "}', {"body/name"}),
        ('{"name": null}', {"body/name"}),
        ('{"name": 7}', {"body/name"}),
        ('{"name": "nul\\u0000"}', {"body/name"}),
        ('{"name": "two\\nlines"}', {"body/name"}),
        ('{"name": "lone \\ud800"}', {"body/name"}),
        (f'{{"name": "{"x" * 201}"}}', {"body/name"}),
        ('{"name": "Acme", "is_active": "yes"}', {"body/is_active"}),
        ('{"name": "Acme", "is_active": NaN}', {"body/is_active"}),
        ('{"name": "Acme", "created_at": "2024-01-01T00:00:00Z"}', {"body/created_at"}),
        ('{"name": "Acme", "a/b~c": 1}', {"body/a~1b~0c"}),
        (f'{{"name": "Acme", "{"x" * 5000}": 1}}', {f"body/{'x' * 100}"}),
        ("[]", {"body"}),
        ("", {"body"}),
        ("{", {"body"}),
        ('{"name": "Acme",}', {"body"}),
    ],
)
def test_error_points_at_each_invalid_field(client: TestClient, body: str, where: set[str]) -> None:
    assert pointers(client, "POST", COMPANIES, body) == where


@pytest.mark.parametrize("name", ["x" * 200, "Ünïted 🏗", "'; DROP TABLE companies; --", "%s {} \\", "null"])
def test_unusual_names_are_stored_unchanged(client: TestClient, name: str) -> None:
    assert client.get(create(client, name)).json()["name"] == name


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "\xff"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"name": ' + b"9" * 5000 + b"}",
        b'{"name": "Acme", "\\ud800": 1}',
    ],
)
def test_unreadable_body_is_a_client_error(client: TestClient, body: bytes) -> None:
    response = client.post(COMPANIES, content=body, headers=JSON)

    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/problem+json"


def test_body_that_does_not_say_it_is_json_is_refused(client: TestClient) -> None:
    response = client.post(COMPANIES, content=b'{"name": "Acme"}', headers={"content-type": "text/plain"})

    assert response.status_code == 422


@pytest.mark.parametrize(
    "body", ['{"name": null}', '{"is_active": null}', '{"name": ""}', '{"nom": "x"}', "[]"]
)
def test_malformed_change_is_refused_and_changes_nothing(client: TestClient, body: str) -> None:
    location = create(client)
    before = client.get(location).json()
    response = client.patch(location, content=body, headers=JSON)

    assert response.status_code == 422
    assert client.get(location).json() == before


@pytest.mark.parametrize(
    "key", ["0", "-1", str(LARGEST_NUMBER + 1), "1" * 5000, "1.5", "one", "%00", "NaN", "1e3"]
)
def test_invalid_id_is_refused(client: TestClient, key: str) -> None:
    response = client.get(f"{COMPANIES}/{key}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/company_id"


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_missing_company_is_not_found(client: TestClient, method: str) -> None:
    path = f"{COMPANIES}/{LARGEST_NUMBER}"
    response = client.request(method, path, json={} if method == "PATCH" else None)

    assert response.status_code == 404
    assert response.json() == {
        "type": "/problems/not-found",
        "title": "Not found",
        "status": 404,
        "detail": f"Company {LARGEST_NUMBER} not found.",
        "instance": path,
    }


@pytest.mark.parametrize("method", ["DELETE", "PUT"])
def test_companies_are_neither_deleted_nor_replaced(client: TestClient, method: str) -> None:
    response = client.request(method, create(client))

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, PATCH"
    assert response.json()["type"] == "about:blank"
