"""The OpenAPI schema's account of errors, so that /docs is true."""

from typing import Any

from fastapi import FastAPI

from backend.schemas.problems import Problem

MEDIA_TYPE = "application/problem+json"

Responses = dict[int | str, dict[str, Any]]

_MEANINGS = {
    404: "There is no such row in this company.",
    409: "It cannot be had as things stand; `type` says why.",
    422: "Part of the request is not as it must be; `errors` says which.",
}


def problem_responses(*statuses: int) -> Responses:
    """Describe these errors of a route, for its `responses`."""
    return {status: _describe(_MEANINGS[status]) for status in statuses}


def document_problems(app: FastAPI) -> None:
    """Have the schema show problem documents wherever FastAPI would show an error of its own."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            components.pop("HTTPValidationError", None)
            components.pop("ValidationError", None)
            own = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            components.update(own.pop("$defs", {}), Problem=own)
            for path in schema["paths"].values():
                for operation in path.values():
                    _correct(operation)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _correct(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if "422" in responses:
        responses["422"] = _describe(_MEANINGS[422])
    if operation.get("security"):
        responses["401"] = _describe("The bearer token is missing or wrong.")
    responses["default"] = _describe("Every other error.")


def _describe(meaning: str) -> dict[str, Any]:
    return {
        "description": meaning,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
