"""What /docs says is what the API does."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient


@pytest.fixture
def schema(client: TestClient) -> dict[str, Any]:
    response: dict[str, Any] = client.get("/openapi.json").json()
    return response


def operations(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    names = re.findall(r"#/components/schemas/([^'\"]+)", str(schema))

    assert names
    assert set(names) <= set(schema["components"]["schemas"])


def test_errors_are_problem_documents_and_nothing_else(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                assert list(response["content"]) == ["application/problem+json"], (name, status)
                content = response["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        assert "default" in operation["responses"], name
    assert "HTTPValidationError" not in str(schema)


def test_every_operation_has_a_summary_and_a_shape(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        assert operation["summary"], name
        (success,) = (status for status in operation["responses"] if status.startswith("2"))
        shape = operation["responses"][success]["content"]["application/json"]["schema"]
        assert "$ref" in shape, name


def test_every_route_of_the_api_wants_the_token(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        guarded = "/api/v1" in name
        assert bool(operation.get("security")) == guarded, name
        assert ("401" in operation["responses"]) == guarded, name


def test_timestamps_are_date_times_and_the_hash_is_nowhere(schema: dict[str, Any]) -> None:
    shapes = schema["components"]["schemas"]
    for name in ("CompanyRead", "UserRead", "UserSettingsRead"):
        for field in ("created_at", "updated_at"):
            assert shapes[name]["properties"][field]["format"] == "date-time"
    assert "password" not in str(schema)


def test_changes_may_leave_everything_out_and_say_no_null(schema: dict[str, Any]) -> None:
    shapes = schema["components"]["schemas"]

    assert "required" not in shapes["CompanyChange"]
    assert "required" not in shapes["UserChange"]
    assert shapes["UserSettingsChange"]["required"] == ["version"]
    for name in ("CompanyChange", "UserChange", "UserSettingsChange"):
        assert "null" not in str(shapes[name])
        assert "None" not in str(shapes[name])


def test_lists_say_their_bounds(schema: dict[str, Any]) -> None:
    parameters = {p["name"]: p["schema"] for p in schema["paths"]["/api/v1/companies"]["get"]["parameters"]}

    assert (parameters["limit"]["minimum"], parameters["limit"]["maximum"]) == (1, 200)
    assert parameters["limit"]["default"] == 50
    assert set(parameters) == {"limit", "cursor"}
    assert "integer" not in str(parameters["cursor"])


def test_no_row_can_be_deleted(schema: dict[str, Any]) -> None:
    assert not [name for name, _ in operations(schema) if name.startswith(("DELETE", "PUT"))]
