"""The OpenAPI schema describes the API correctly; `/` leads to it; HEAD and OPTIONS work on every path."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from backend.config import load_settings
from backend.main import create_app


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


def test_every_reference_is_defined(schema: dict[str, Any]) -> None:
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


def test_schema_requires_the_token_where_the_api_does(schema: dict[str, Any], guarded: TestClient) -> None:
    assert "security" not in str(schema)
    for name, operation in operations(guarded.get("/openapi.json").json()):
        is_guarded = "/api/v1" in name
        assert bool(operation.get("security")) == is_guarded, name
        assert ("401" in operation["responses"]) == is_guarded, name


def test_operations_are_named_after_their_functions(schema: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(schema)]

    assert len(names) == len(set(names))
    assert {"create_company", "list_users", "change_settings", "ready"} <= set(names)


def test_head_is_get_without_a_body_and_options_allows_every_method(
    client: TestClient, schema: dict[str, Any]
) -> None:
    for path, methods in schema["paths"].items():
        # There is no row with this id.
        url = re.sub(r"\{\w+\}", "7", path)
        get, head = client.get(url), client.head(url)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers == get.headers, path
        options = client.options(url)
        assert (options.status_code, options.content) == (204, b""), path
        allowed = {method.upper() for method in methods} | {"HEAD", "OPTIONS"}
        assert options.headers["allow"] == ", ".join(sorted(allowed)), path
        assert client.request("TRACE", url).headers["allow"] == options.headers["allow"], path
    assert client.options("/nowhere").status_code == 404


def test_root_leads_to_the_docs(engine: Engine) -> None:
    settings = load_settings(
        _env_file=None, app_env="test", database_url=engine.url.render_as_string(hide_password=False)
    )
    client = TestClient(create_app(settings, engine=engine), root_path="/prefix")

    assert client.get("/", follow_redirects=False).headers["location"] == "/prefix/docs"


def test_hash_of_the_password_is_nowhere(schema: dict[str, Any]) -> None:
    assert "password" not in str(schema)


def test_changes_may_leave_out_every_field_and_show_no_null(schema: dict[str, Any]) -> None:
    shapes = schema["components"]["schemas"]

    assert "required" not in shapes["CompanyChange"]
    assert "required" not in shapes["UserChange"]
    assert shapes["UserSettingsChange"]["required"] == ["version"]
    for name in ("CompanyChange", "UserChange", "UserSettingsChange"):
        assert "null" not in str(shapes[name])
        assert "None" not in str(shapes[name])


def test_lists_state_their_bounds(schema: dict[str, Any]) -> None:
    limit, cursor = (item["schema"] for item in schema["paths"]["/api/v1/companies"]["get"]["parameters"])

    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 200, 50)
    assert cursor == {"type": "string", "pattern": "^[0-7][0-9a-f]{15}$", "title": "Cursor"}
