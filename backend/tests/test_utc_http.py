"""Timestamps of every endpoint are declared as date-times, refused in any other form, and shown in 27 characters."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, Query
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import AwareDatetime, BaseModel, TypeAdapter
from sqlalchemy import Engine

from backend.tests.application import make_app
from backend.utc import UtcField

SHOWN = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z")


FIELD: TypeAdapter[Any] = TypeAdapter(UtcField)
PATTERNS = {FIELD.json_schema(mode=mode)["pattern"] for mode in ("validation", "serialization")}


def times(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every date, time and date-time that a schema declares."""
    if isinstance(node, dict) and node.get("format") in ("date-time", "date", "time"):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from times(part)


def is_bare(time: dict[str, Any]) -> bool:
    return time.get("pattern") not in PATTERNS


def test_every_endpoint_declares_its_times(engine: Engine) -> None:
    app = make_app(engine)
    declared = list(times(app.openapi()))

    assert len(declared) > 5
    assert not [time for time in declared if is_bare(time)]
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and not str(route.path).startswith("/docs"):
            # Without a schema, nothing would describe the response.
            assert route.include_in_schema, route.path
            assert route.response_model is not None, route.path


class Bare(BaseModel):
    at: datetime


class Right(BaseModel):
    at: UtcField
    maybe: UtcField | None = None


class Nested(BaseModel):
    bare: list[Bare | None]


def shows(_: Right) -> Nested:
    raise NotImplementedError


def shows_a_list() -> list[AwareDatetime]:
    raise NotImplementedError


def takes_a_body(_body: Nested) -> Right:
    raise NotImplementedError


def takes_a_date(day: date) -> Right:
    raise NotImplementedError


def takes_a_query(_query: Annotated[Bare, Query()]) -> Right:
    raise NotImplementedError


def takes_a_header(since: Annotated[datetime, Header()]) -> Right:
    raise NotImplementedError


@pytest.mark.parametrize(
    "endpoint", [shows, shows_a_list, takes_a_body, takes_a_date, takes_a_query, takes_a_header]
)
def test_endpoint_with_a_bare_time_is_found(endpoint: Any) -> None:
    app = FastAPI()
    app.post("/x")(endpoint)

    assert len([time for time in times(app.openapi()) if is_bare(time)]) == 1


@pytest.fixture(scope="module")
def echo() -> TestClient:
    """Make an application that returns the timestamps it gets: the project's endpoints accept none yet."""
    app = FastAPI()

    @app.get("/")
    def by_query(since: UtcField) -> Right:
        return Right(at=since)

    @app.post("/")
    def by_body(body: Right) -> Right:
        return body

    return TestClient(app)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2024-11-03T01:30:00-05:00", "2024-11-03T06:30:00.000000Z"),
        ("2023-12-31T23:59:59.999999Z", "2023-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_every_time_is_shown_in_the_one_form(echo: TestClient, sent: str, shown: str) -> None:
    responses = [echo.get("/", params={"since": sent}), echo.post("/", json={"at": sent, "maybe": None})]

    assert [response.json() for response in responses] == [{"at": shown, "maybe": None}] * 2


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ("2024-01-31T12:00:00", "send an RFC 3339 date-time"),
        ("0001-01-01T00:00:00+14:00", "outside the years 1 to 9999"),
        (1_700_000_000, "send an RFC 3339 date-time"),
    ],
)
def test_other_body_is_a_422_that_says_what_to_send(echo: TestClient, sent: object, words: str) -> None:
    response = echo.post("/", json={"at": sent})
    (error,) = response.json()["detail"]

    assert (response.status_code, error["type"], error["loc"]) == (422, "utc_instant", ["body", "at"])
    assert words in error["msg"]


def test_plus_that_arrives_as_a_space_is_a_422_that_says_how_to_escape_it(echo: TestClient) -> None:
    response = echo.get("/?since=2024-01-01T00:00:00+00:00")
    (error,) = response.json()["detail"]

    assert (response.status_code, error["loc"]) == (422, ["query", "since"])
    assert "send it as %2B, or use Z" in error["msg"]
    assert echo.get("/?since=2024-01-01T00:00:00%2B00:00").status_code == 200


def ask_for_everything(client: TestClient) -> list[tuple[str, Response]]:
    """Call each endpoint, and return its path with the response. Add a line for each new endpoint."""
    api = "/api/v1/companies"
    user, settings = (
        f"{api}/{{company_id}}/users/{{user_id}}",
        f"{api}/{{company_id}}/users/{{owner_id}}/settings",
    )
    calls: list[tuple[str, str, dict[str, Any] | None]] = [
        ("GET", "/health/live", None),
        ("GET", "/health/ready", None),
        ("POST", api, {"name": "Acme"}),
        ("GET", api, None),
        ("GET", f"{api}/{{company_id}}", None),
        ("PATCH", f"{api}/{{company_id}}", {"name": "Bau"}),
        ("POST", f"{api}/{{company_id}}/users", {"email": "a@example.com"}),
        ("GET", f"{api}/{{company_id}}/users", None),
        ("GET", user, None),
        ("PATCH", user, {"role": "admin"}),
        ("POST", settings, {}),
        ("GET", settings, None),
        ("PATCH", settings, {"version": 1, "timezone": "Asia/Kathmandu"}),
        ("GET", f"{api}/{{company_id}}/user-settings", None),
    ]
    return [
        (path, client.request(method, path.format(company_id=1, user_id=1, owner_id=1), json=body))
        for method, path, body in calls
    ]


def test_every_response_of_the_api_shows_27_characters(engine: Engine) -> None:
    """The zone of the database is not UTC."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"ALTER DATABASE \"{engine.url.database}\" SET timezone = 'Asia/Kathmandu'"
        )
    engine.dispose()
    app = make_app(engine)
    with TestClient(app) as client:
        responses = ask_for_everything(client)

    assert all(response.is_success for _, response in responses)
    asked = {(response.request.method.lower(), path) for path, response in responses}
    assert asked == {(method, path) for path, methods in app.openapi()["paths"].items() for method in methods}
    times = [time for _, response in responses for time in re.findall(r'_at": ?"?([^",}]*)', response.text)]
    assert len(times) == 24
    for shown in times:
        assert SHOWN.fullmatch(shown)
        assert abs((datetime.now(UTC) - datetime.fromisoformat(shown)).total_seconds()) < 600
