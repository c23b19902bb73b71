"""Users over HTTP: emails are unique, and a company never sees another company's users."""

from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from backend.models.models import Role
from backend.schemas import users as schemas
from backend.tests.test_api_companies import COMPANIES, create, pointers


@pytest.fixture
def company(client: TestClient) -> str:
    return create(client)


def create_user(client: TestClient, company: str, email: str = "one@example.com", **values: object) -> str:
    response = client.post(f"{company}/users", json={"email": email, **values})
    assert response.status_code == 201, response.text
    return response.headers["location"]


def test_created_user_is_returned_and_read_at_its_location(client: TestClient, company: str) -> None:
    response = client.post(f"{company}/users", json={"email": " One@Example.com "})
    user: dict[str, Any] = response.json()

    assert response.headers["location"] == f"{company}/users/{user['id']}"
    assert user == {
        "id": user["id"],
        "company_id": int(company.rpartition("/")[2]),
        "email": "One@Example.com",
        "role": "member",
        "is_active": True,
        "created_at": user["created_at"],
        "updated_at": user["created_at"],
    }
    assert client.get(response.headers["location"]).json() == user


def test_password_hash_is_never_returned(client: TestClient, company: str, engine: Engine) -> None:
    location = create_user(client, company)
    with engine.begin() as connection:
        connection.execute(text("UPDATE users SET password_hash = 'very-secret'"))

    for response in (
        client.get(location),
        client.get(f"{company}/users"),
        client.patch(location, json={"role": "admin"}),
    ):
        assert response.status_code == 200
        assert "password" not in response.text
        assert "very-secret" not in response.text


@pytest.mark.parametrize("where", ["the same company", "another company"])
def test_taken_email_is_a_conflict_that_names_the_field(client: TestClient, company: str, where: str) -> None:
    create_user(client, company, "one@example.com")
    if where == "another company":
        company = create(client, "Other")
    response = client.post(f"{company}/users", json={"email": "ONE@example.COM"})

    assert response.status_code == 409
    problem = response.json()
    assert problem["type"] == "/problems/email-taken"
    assert [error["pointer"] for error in problem["errors"]] == ["/email"]


def test_email_changed_to_a_taken_one_is_a_conflict(client: TestClient, company: str) -> None:
    create_user(client, company, "one@example.com")
    location = create_user(client, company, "two@example.com")
    response = client.patch(location, json={"email": "One@example.com", "role": "owner"})

    assert (response.status_code, response.json()["type"]) == (409, "/problems/email-taken")
    assert client.get(location).json()["role"] == "member"


def test_case_of_an_email_can_be_changed(client: TestClient, company: str) -> None:
    location = create_user(client, company, "one@example.com")

    assert client.patch(location, json={"email": "One@Example.com"}).json()["email"] == "One@Example.com"


def test_another_companys_user_is_not_found(client: TestClient, company: str) -> None:
    location = create_user(client, company)
    foreign = f"{create(client, 'Other')}/users/{location.rpartition('/')[2]}"
    nobody = f"{company}/users/999999"

    for method, body in (("GET", None), ("PATCH", {"role": "owner"})):
        responses = [client.request(method, path, json=body) for path in (foreign, nobody)]
        assert [response.status_code for response in responses] == [404, 404]
        # They differ only in the id and the path, which the client knows.
        kinds = [(response.json()["type"], response.json()["title"]) for response in responses]
        assert kinds[0] == kinds[1]
    assert client.get(location).json()["role"] == "member"
    assert client.get(f"{foreign.rpartition('/')[0]}").json()["items"] == []


def test_missing_company_gets_no_user(client: TestClient) -> None:
    assert client.post(f"{COMPANIES}/999999/users", json={"email": "one@example.com"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("{}", {"body/email"}),
        ('{"email": "one"}', {"body/email"}),
        ('{"email": "@example.com"}', {"body/email"}),
        ('{"email": "one@"}', {"body/email"}),
        ('{"email": "one@two@three"}', {"body/email"}),
        ('{"email": "o ne@example.com"}', {"body/email"}),
        ('{"email": "one\\u0000@example.com"}', {"body/email"}),
        ('{"email": "one\\ud800@example.com"}', {"body/email"}),
        (f'{{"email": "{"x" * 310}@example.com"}}', {"body/email"}),
        ('{"email": "one@example.com", "role": "Owner"}', {"body/role"}),
        ('{"email": "one@example.com", "company_id": 2}', {"body/company_id"}),
    ],
)
def test_error_points_at_each_invalid_field_of_a_user(
    client: TestClient, company: str, body: str, where: set[str]
) -> None:
    assert pointers(client, "POST", f"{company}/users", body) == where


def test_roles_of_schema_and_model_are_the_same() -> None:
    assert get_args(schemas.Role) == tuple(Role)
