"""Every timestamp of every endpoint: declared as an instant, refused as anything else, shown in 27 characters."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, Query
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import AwareDatetime, BaseModel
from sqlalchemy import Engine, text

from backend.tests.application import make_app
from backend.tests.test_utc_values import REFUSED_TEXTS
from backend.utc import UtcField

SHOWN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$"
TAKEN = r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$"
TEMPORAL = {"date-time", "date", "time"}
# What is no JSON has no shape to declare.
PAGES = {"/docs"}


def faults(app: FastAPI) -> list[str]:
    """Say which endpoints have no response model, or take or show a time that is no UtcField."""
    found = []
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.path not in PAGES:
            if not route.include_in_schema:
                found.append(f"{route.path}: not in the schema")
            if route.response_model is None:
                found.append(f"{route.path}: no response model")
    schema = app.openapi()
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            responses = operation["responses"].values()
            found += [f"{path}: shows {fault}" for fault in _times(schema, responses, SHOWN)]
            taken = [operation.get("parameters", []), operation.get("requestBody", {})]
            found += [f"{path}: takes {fault}" for fault in _times(schema, taken, TAKEN)]
    return sorted(set(found))


def _times(
    schema: dict[str, Any],
    node: Any,  # noqa: ANN401 - any part of JSON
    pattern: str,
    seen: frozenset[str] = frozenset(),
) -> Iterator[str]:
    """Follow the references from here; name each time that has another pattern."""
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            target = schema["components"]["schemas"][reference.rpartition("/")[2]]
            yield from _times(schema, target, pattern, seen | {reference})
        if node.get("format") in TEMPORAL and node.get("pattern") != pattern:
            yield f"a bare {node['format']}"
        node = node.values()
    elif isinstance(node, str) or not hasattr(node, "__iter__"):
        return
    for part in node:
        yield from _times(schema, part, pattern, seen)


def test_every_endpoint_declares_its_times(engine: Engine) -> None:
    app = make_app(engine)

    assert faults(app) == []
    shape = app.openapi()["components"]["schemas"]["CompanyRead"]
    assert shape["properties"]["created_at"]["pattern"] == SHOWN


class Bare(BaseModel):
    at: datetime


class Right(BaseModel):
    at: UtcField
    maybe: UtcField | None = None


class Nested(BaseModel):
    bare: list[Bare | None]


def _bare_response() -> Bare:
    raise NotImplementedError


def _nested_response() -> Nested:
    raise NotImplementedError


def _aware_response() -> list[AwareDatetime]:
    raise NotImplementedError


def _bare_body(body: Nested) -> Right:
    raise NotImplementedError


def _bare_query(since: datetime) -> Right:
    raise NotImplementedError


def _bare_query_model(query: Annotated[Bare, Query()]) -> Right:
    raise NotImplementedError


def _bare_header(since: Annotated[datetime, Header()]) -> Right:
    raise NotImplementedError


def _date_and_time(day: date, at: time) -> Right:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (_bare_response, ["/x: shows a bare date-time"]),
        (_nested_response, ["/x: shows a bare date-time"]),
        (_aware_response, ["/x: shows a bare date-time"]),
        (_bare_body, ["/x: takes a bare date-time"]),
        (_bare_query, ["/x: takes a bare date-time"]),
        (_bare_query_model, ["/x: takes a bare date-time"]),
        (_bare_header, ["/x: takes a bare date-time"]),
        (_date_and_time, ["/x: takes a bare date", "/x: takes a bare time"]),
    ],
)
def test_endpoint_with_a_bare_time_is_found(endpoint: Any, expected: list[str]) -> None:  # noqa: ANN401 - any endpoint
    app = FastAPI()
    app.post("/x")(endpoint)

    assert faults(app) == expected


def test_endpoint_without_a_response_model_is_found() -> None:
    app = FastAPI()
    app.post("/x", response_model=None)(_bare_response)

    assert faults(app) == ["/x: no response model"]


def test_endpoint_that_hides_from_the_schema_is_found() -> None:
    app = FastAPI()
    app.get("/x", include_in_schema=False)(_bare_response)

    assert faults(app) == ["/x: not in the schema"]


@pytest.fixture(scope="module")
def echo() -> TestClient:
    """Give an application that shows what it was sent: the project's own endpoints take no time yet."""
    app = FastAPI()

    @app.get("/")
    def by_query(since: UtcField) -> Right:
        return Right(at=since)

    @app.post("/")
    def by_body(body: Right) -> Right:
        return body

    assert faults(app) == []
    return TestClient(app)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2024-11-03T01:30:00-04:00", "2024-11-03T05:30:00.000000Z"),
        ("2024-11-03T01:30:00-05:00", "2024-11-03T06:30:00.000000Z"),
        ("2023-12-31T23:59:59.999999Z", "2023-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_every_time_is_shown_in_the_one_form(echo: TestClient, sent: str, shown: str) -> None:
    by_query = echo.get("/", params={"since": sent})
    by_body = echo.post("/", json={"at": sent, "maybe": None})

    assert by_query.json() == by_body.json() == {"at": shown, "maybe": None}
    assert f'"at":"{shown}"' in by_body.text.replace(" ", "")


@pytest.mark.parametrize("sent", [text for text, _ in REFUSED_TEXTS] + [1_700_000_000, 1.5, True, None, {}])
def test_body_that_is_no_instant_is_a_422_that_tells_what_to_send(echo: TestClient, sent: object) -> None:
    response = echo.post("/", json={"at": sent})
    (error,) = response.json()["detail"]

    assert (response.status_code, error["type"], error["loc"]) == (422, "utc_instant", ["body", "at"])
    assert re.search(r"send", error["msg"]) or "outside the years" in error["msg"]


@pytest.mark.parametrize("sent", [text for text, _ in REFUSED_TEXTS] + ["1700000000", "2024-01-01"])
def test_query_that_is_no_instant_is_a_422(echo: TestClient, sent: str) -> None:
    response = echo.get("/", params={"since": sent})
    (error,) = response.json()["detail"]

    assert (response.status_code, error["type"], error["loc"]) == (422, "utc_instant", ["query", "since"])


def test_plus_that_arrives_as_a_space_is_told_to_be_escaped(echo: TestClient) -> None:
    response = echo.get("/?since=2024-01-01T00:00:00+00:00")
    (error,) = response.json()["detail"]

    assert response.status_code == 422
    assert "send it as %2B, or send the instant with Z" in error["msg"]
    assert echo.get("/?since=2024-01-01T00:00:00%2B00:00").status_code == 200


def ask_for_everything(client: TestClient) -> list[tuple[str, Response]]:
    """Ask each endpoint once, and return its path with what it answered; whoever adds an endpoint adds a line."""
    company = "/api/v1/companies/1"
    return [
        ("/health/live", client.get("/health/live")),
        ("/health/ready", client.get("/health/ready")),
        ("/api/v1/companies", client.post("/api/v1/companies", json={"name": "Acme"})),
        ("/api/v1/companies", client.get("/api/v1/companies")),
        ("/api/v1/companies/{company_id}", client.get(company)),
        ("/api/v1/companies/{company_id}", client.patch(company, json={"name": "Bau"})),
        (
            "/api/v1/companies/{company_id}/users",
            client.post(f"{company}/users", json={"email": "a@example.com"}),
        ),
        ("/api/v1/companies/{company_id}/users", client.get(f"{company}/users")),
        ("/api/v1/companies/{company_id}/users/{user_id}", client.get(f"{company}/users/1")),
        (
            "/api/v1/companies/{company_id}/users/{user_id}",
            client.patch(f"{company}/users/1", json={"role": "admin"}),
        ),
        (
            "/api/v1/companies/{company_id}/users/{user_id}/settings",
            client.post(f"{company}/users/1/settings", json={}),
        ),
        (
            "/api/v1/companies/{company_id}/users/{user_id}/settings",
            client.get(f"{company}/users/1/settings"),
        ),
        (
            "/api/v1/companies/{company_id}/users/{user_id}/settings",
            client.patch(f"{company}/users/1/settings", json={"version": 1, "timezone": "Asia/Kathmandu"}),
        ),
        ("/api/v1/companies/{company_id}/user-settings", client.get(f"{company}/user-settings")),
    ]


def test_every_response_of_the_api_shows_27_characters(engine: Engine) -> None:
    """In a database whose zone is not UTC."""
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE \"{engine.url.database}\" SET timezone = 'Asia/Kathmandu'"))
    engine.dispose()
    app = make_app(engine)
    with TestClient(app) as client:
        responses = ask_for_everything(client)

    assert all(response.is_success for _, response in responses)
    asked = {(response.request.method.lower(), path) for path, response in responses}
    assert asked == {(method, path) for path, methods in app.openapi()["paths"].items() for method in methods}
    times = [
        found for _, response in responses for found in re.findall(r'_at": ?("[^"]*"|null)', response.text)
    ]
    assert len(times) == 24
    for shown in times:
        assert re.fullmatch(SHOWN[1:-1], shown.strip('"'))
        age = datetime.now(UTC) - datetime.fromisoformat(shown.strip('"'))
        assert abs(age.total_seconds()) < 600
