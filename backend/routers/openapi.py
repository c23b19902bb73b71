"""The parts of the OpenAPI schema that FastAPI cannot generate: errors, the token and the Location header."""

from typing import Any

from fastapi import FastAPI

from backend.schemas.fields import JSON_VALUE
from backend.schemas.problems import Problem

MEDIA_TYPE = "application/problem+json"

Responses = dict[int | str, dict[str, Any]]

CREATED: Responses = {
    201: {"headers": {"Location": {"description": "The path of the new row.", "schema": {"type": "string"}}}}
}

_MEANINGS = {
    400: "The body is not UTF-8.",
    401: "The bearer token is missing or wrong.",
    404: "The company does not exist, or has no such row.",
    409: "Conflicts with the current state; `type` says why.",
    413: "The body is too large.",
    422: "The request is invalid; `errors` says where.",
    503: "The database is not available, or the server is busy. Retry after the seconds in `Retry-After`.",
    "default": "Any other error.",
}


def problem_responses(*statuses: int | str) -> Responses:
    """Return the OpenAPI descriptions of these errors, for the `responses` of a route."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


def document_problems(app: FastAPI) -> None:
    """Correct FastAPI's schema: errors are problem documents, and a token is needed only if one is set."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        schema = generate()
        components = schema["components"]
        own = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        components["schemas"].update(own.pop("$defs", {}), Problem=own, JsonValue=JSON_VALUE)
        is_open = app.state.api_token is None
        if is_open:
            components.pop("securitySchemes", None)
        for path in schema["paths"].values():
            for operation in path.values():
                _correct(operation, is_open=is_open)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _correct(operation: dict[str, Any], *, is_open: bool) -> None:
    if is_open:
        operation.pop("security", None)
    statuses = [401] * ("security" in operation) + [400, 413] * ("requestBody" in operation)
    operation["responses"] |= {str(status): it for status, it in problem_responses(*statuses).items()}
