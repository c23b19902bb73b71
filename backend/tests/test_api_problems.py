"""Every error is a problem document, and reveals no details that the client must not see."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine, text

from backend import errors
from backend.database import SessionLocal, connect
from backend.routers.error_handlers import CONSTRAINTS, KINDS
from backend.routers.middleware import LARGEST_BODY
from backend.tests import factories
from backend.tests.application import TOKEN, make_app

COMPANIES = "/api/v1/companies"


def assert_problem(response: Response, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (problem["type"], problem["status"]) == (kind, status)
    assert problem["title"]
    return problem


def descendants(base: type[Exception]) -> Iterator[type[Exception]]:
    for error in base.__subclasses__():
        yield error
        yield from descendants(error)


def test_every_domain_error_is_in_the_table() -> None:
    assert set(descendants(errors.DomainError)) == set(KINDS)
    assert len({kind.slug for kind in KINDS.values()}) == len(KINDS)


def test_constraints_in_the_table_exist(engine: Engine) -> None:
    """If a constraint were renamed, its conflict would become a 500."""
    with engine.connect() as connection:
        names = connection.scalars(
            text("SELECT conname FROM pg_constraint UNION SELECT relname FROM pg_class WHERE relkind = 'i'")
        )

        assert CONSTRAINTS.keys() <= set(names)


def test_unknown_path_is_a_problem(client: TestClient) -> None:
    problem = assert_problem(client.get("/nowhere/%E2%82%AC%0A"), 404, "about:blank")

    assert problem["instance"] == "/nowhere/%E2%82%AC%0A"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", COMPANIES),
        ("POST", COMPANIES),
        ("PATCH", f"{COMPANIES}/1"),
        ("GET", f"{COMPANIES}/1/user-settings"),
    ],
)
@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer ü"]
)
def test_request_without_the_token_is_refused(
    guarded: TestClient, method: str, path: str, header: str | None
) -> None:
    headers = {} if header is None else {b"authorization": header.encode()}
    response = guarded.request(method, path, headers=headers)

    assert_problem(response, 401, "about:blank")
    assert response.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in response.text


def test_request_with_the_token_is_accepted(guarded: TestClient) -> None:
    response = guarded.post(COMPANIES, json={"name": "Acme"}, headers={"authorization": f"Bearer {TOKEN}"})

    assert response.status_code == 201


def test_other_paths_need_no_token(guarded: TestClient) -> None:
    for path in ("/docs", "/openapi.json", "/health/live"):
        assert guarded.get(path).status_code == 200


def test_values_are_not_repeated_in_errors(client: TestClient) -> None:
    body = {"name": ["hunter2"], "is_active": "hunter2", "password": "hunter2"}
    response = client.post(COMPANIES, json=body)

    problem = assert_problem(response, 422, "/problems/invalid-request")
    assert "hunter2" not in response.text
    assert [set(error) for error in problem["errors"]] == [{"location", "pointer", "message"}] * 3


def test_all_invalid_parts_are_reported_at_once(client: TestClient) -> None:
    response = client.post(f"{COMPANIES}/0/users?x=1", json={"email": "one", "role": "chief"})

    problem = assert_problem(response, 422, "/problems/invalid-request")
    places = {error["location"] + error["pointer"] for error in problem["errors"]}
    assert places == {"path/company_id", "body/email", "body/role"}


def test_unavailable_database_is_a_503(caplog: pytest.LogCaptureFixture) -> None:
    engine = connect("postgresql+psycopg://user:hunter2@127.0.0.1:1/nothing")
    response = TestClient(make_app(engine)).get(COMPANIES)
    engine.dispose()

    assert_problem(response, 503, "/problems/database-unavailable")
    assert response.headers["retry-after"] == "1"
    assert "127.0.0.1" not in response.text
    assert "hunter2" not in caplog.text
    assert [record.levelno for record in caplog.records if record.name.startswith("backend")] == [
        logging.WARNING
    ]


def test_pool_without_a_free_connection_is_a_503(postgres_url: str) -> None:
    engine = connect(postgres_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    with engine.connect():
        response = TestClient(make_app(engine)).get(COMPANIES)
    engine.dispose()

    assert_problem(response, 503, "/problems/database-unavailable")


def test_connection_that_ended_between_requests_is_replaced(client: TestClient, engine: Engine) -> None:
    client.get(COMPANIES)
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                " AND application_name = 'procore-integrator'"
            )
        )

    assert client.get(COMPANIES).status_code == 200


def test_check_that_fails_at_the_commit_is_a_422(engine: Engine) -> None:
    """Errors of the commit are handled like errors of a statement."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'"
                " USING ERRCODE = 'check_violation', CONSTRAINT = 'ck_companies_late'; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON companies DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    response = TestClient(make_app(engine)).post(COMPANIES, json={"name": "Acme"})

    problem = assert_problem(response, 422, "/problems/refused-value")
    assert "ck_companies_late" in str(problem["detail"])
    assert "location" not in response.headers


@pytest.mark.parametrize(
    ("parent", "child", "path", "body"),
    [
        ("companies", "users", "users", {"email": "two@example.com"}),
        ("users", "user_settings", "users/{user}/settings", {}),
    ],
)
def test_parent_that_is_deleted_meanwhile_is_not_found(
    engine: Engine, parent: str, child: str, path: str, body: dict[str, str]
) -> None:
    """The foreign key is violated after the service has read the row that it references."""
    with SessionLocal(bind=engine) as session, session.begin():
        company = factories.make_company(session).id
        user = None if parent == "companies" else factories.make_user(session, company_id=company).id
        function = f"BEGIN DELETE FROM {parent}; RETURN NEW; END"
        session.execute(text(f"CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS $${function}$$"))
        session.execute(
            text(f"CREATE TRIGGER vanish BEFORE INSERT ON {child} FOR EACH ROW EXECUTE FUNCTION vanish()")
        )
    path = f"{COMPANIES}/{company}/{path.format(user=user)}"
    response = TestClient(make_app(engine)).post(path, json=body)

    assert_problem(response, 404, "/problems/not-found")


def test_unknown_constraint_is_a_500_without_details(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE companies ADD CONSTRAINT uq_surprise UNIQUE (name)"))
    client = TestClient(make_app(engine), raise_server_exceptions=False)
    responses = [client.post(COMPANIES, json={"name": "Acme"}) for _ in range(2)]

    assert responses[0].status_code == 201
    assert_problem(responses[1], 500, "about:blank")
    assert "surprise" not in responses[1].text


def test_unexpected_error_is_raised_again_for_the_log_of_the_server(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE companies RENAME COLUMN is_active TO active"))
    application = make_app(engine)
    response = TestClient(application, raise_server_exceptions=False).get(COMPANIES)

    problem = assert_problem(response, 500, "about:blank")
    assert "is_active" not in str(problem)
    with pytest.raises(Exception, match="is_active"):
        TestClient(application).get(COMPANIES)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "found out"])
def test_body_that_is_too_large_is_refused(client: TestClient, *, announced: bool) -> None:
    body = json.dumps({"name": "x" * LARGEST_BODY}).encode()
    response = client.post(COMPANIES, content=body if announced else iter([body]))

    assert_problem(response, 413, "about:blank")
