"""Lists over HTTP: reading page by page returns every row once, even if rows change meanwhile."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from backend.database import SessionLocal
from backend.tests import factories

COMPANIES = "/api/v1/companies"
RESOURCES = ["companies", "users", "user-settings"]
ROWS = 7


@pytest.fixture(params=RESOURCES)
def path(request: pytest.FixtureRequest, engine: Engine) -> str:
    """Return the path of a list of seven rows, all with the same timestamps, mixed with another company's."""
    with SessionLocal(bind=engine) as session, session.begin():
        company, other = factories.make_company(session), factories.make_company(session)
        if request.param == "companies":
            for _ in range(ROWS - 2):
                factories.make_company(session)
            path = COMPANIES
        else:
            for _ in range(ROWS):
                for owner in (company, other):
                    user = factories.make_user(session, company_id=owner.id)
                    factories.make_user_settings(session, user_id=user.id)
            path = f"{COMPANIES}/{company.id}/{request.param}"
        # A changed row moves to the end of its table: the table's order is no longer that of the keys.
        session.execute(text("UPDATE companies SET is_active = false WHERE id = :id"), {"id": company.id})
        session.execute(text("UPDATE users SET is_active = false WHERE id = (SELECT min(id) FROM users)"))
        session.execute(
            text(
                "UPDATE user_settings SET email_notifications = false"
                " WHERE user_id = (SELECT min(user_id) FROM user_settings)"
            )
        )
    return path


def key(item: dict[str, Any]) -> int:
    return int(item["id"] if "id" in item else item["user_id"])


def walk(client: TestClient, path: str, limit: int) -> list[list[int]]:
    pages: list[list[int]] = []
    cursor = None
    while len(pages) <= ROWS:
        params: dict[str, str | int] = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        response = client.get(path, params=params)
        assert response.status_code == 200, response.text
        page = response.json()
        assert set(page) == {"items", "next_cursor"}
        pages.append([key(item) for item in page["items"]])
        cursor = page["next_cursor"]
        if cursor is None:
            return pages
    raise AssertionError(f"the list does not end: {pages}")


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (6, [6, 1]), (7, [7]), (200, [7])]
)
def test_walk_shows_every_row_once_in_order(
    client: TestClient, path: str, limit: int, sizes: list[int]
) -> None:
    pages = walk(client, path, limit)
    keys = [key for page in pages for key in page]

    assert [len(page) for page in pages] == sizes
    assert keys == sorted(set(keys))
    assert len(keys) == ROWS


def test_walk_continues_after_the_row_of_the_cursor_is_deleted(client: TestClient, engine: Engine) -> None:
    with SessionLocal(bind=engine) as session, session.begin():
        ids = [factories.make_company(session).id for _ in range(4)]
    first = client.get(COMPANIES, params={"limit": 2}).json()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM companies WHERE id = :id"), {"id": ids[1]})
    second = client.get(COMPANIES, params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [key(item) for item in second["items"]] == ids[2:]


def test_default_limit_is_fifty(client: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO companies (name) SELECT 'x' FROM generate_series(1, 51)"))
    page = client.get(COMPANIES).json()

    assert len(page["items"]) == 50
    assert page["next_cursor"]


def test_empty_list_has_no_next_page(client: TestClient) -> None:
    assert client.get(COMPANIES).json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("resource", RESOURCES[1:])
def test_list_of_a_missing_company_is_not_found(client: TestClient, resource: str) -> None:
    assert client.get(f"{COMPANIES}/999999/{resource}").status_code == 404


@pytest.mark.parametrize("limit", ["0", "201", "-1", "1.5", "many", "", "99999999999999999999"])
def test_limit_out_of_bounds_is_refused(client: TestClient, limit: str) -> None:
    response = client.get(COMPANIES, params={"limit": limit})

    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["/limit"]


@pytest.mark.parametrize(
    "cursor",
    ["", "\x00", "8" + "0" * 15, "0" * 15, "0" * 17, "0" * 15 + "F", "0" * 15 + "\u0667", "0" * 16 + "\n"],
    ids=lambda text: repr(text[:20]),
)
def test_invalid_cursor_is_refused(client: TestClient, cursor: str) -> None:
    response = client.get(COMPANIES, params={"cursor": cursor})

    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["/cursor"]


def test_unknown_parameter_is_refused(client: TestClient) -> None:
    response = client.get(COMPANIES, params={"limt": 5})

    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["/limt"]
