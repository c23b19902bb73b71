"""Turn every error into `application/problem+json` (RFC 9457), by the tables below."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import psycopg
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from backend.errors import (
    DomainError,
    EmailTakenError,
    NotFoundError,
    RefusedValueError,
    SettingsExistError,
    StaleVersionError,
)
from backend.routers.openapi import MEDIA_TYPE
from backend.schemas.problems import FieldProblem, Problem

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of problem. Clients rely on the slug, which never changes; the detail differs each time."""

    status: int
    slug: str
    title: str
    pointer: str | None = None
    """The field of the body that is wrong, if it is always the same."""


KINDS: dict[type[Exception], Kind] = {
    NotFoundError: Kind(404, "not-found", "Not found"),
    EmailTakenError: Kind(409, "email-taken", "Email taken", pointer="/email"),
    SettingsExistError: Kind(409, "settings-exist", "Settings exist"),
    StaleVersionError: Kind(409, "stale-version", "Stale version", pointer="/version"),
    RefusedValueError: Kind(422, "refused-value", "Refused value"),
}
INVALID = Kind(422, "invalid-request", "Invalid request")
UNAVAILABLE = Kind(503, "database-unavailable", "Database unavailable")

# The meaning of a violated constraint, for every statement and for the commit.
CONSTRAINTS: dict[str, Callable[[], DomainError]] = {
    "uq_users_email_lower": EmailTakenError,
    "fk_users_company_id_companies": lambda: NotFoundError("company"),
    "pk_user_settings": SettingsExistError,
    "fk_user_settings_user_id_users": lambda: NotFoundError("user"),
}


def _on_domain_error(request: Request, error: DomainError) -> Response:
    kind = KINDS[type(error)]
    field = FieldProblem(location="body", pointer=kind.pointer, message=str(error)) if kind.pointer else None
    return _respond(request, kind, str(error), errors=[field] if field else None)


def _on_integrity_error(request: Request, error: IntegrityError) -> Response:
    if isinstance(error.orig, psycopg.Error):
        name = error.orig.diag.constraint_name
        if name in CONSTRAINTS:
            return _on_domain_error(request, CONSTRAINTS[name]())
        if isinstance(error.orig, psycopg.errors.CheckViolation):
            return _on_domain_error(request, RefusedValueError(name))
    # A constraint that is not in the table is our bug: the response is a 500, and the error is logged.
    raise error


def _on_unavailable(request: Request, error: OperationalError | PoolTimeoutError) -> Response:
    logger.warning("%s %s: %s", request.method, quote(request.scope["path"]), getattr(error, "orig", error))
    detail = "The database is not available; try again in a moment."
    return _respond(request, UNAVAILABLE, detail, headers={"Retry-After": "1"})


def _on_invalid_request(request: Request, error: RequestValidationError) -> Response:
    problems = [_field_problem(item) for item in error.errors()]
    return _respond(request, INVALID, "The request is invalid.", errors=problems)


def _on_http_exception(request: Request, error: HTTPException) -> Response:
    kind = Kind(error.status_code, "", HTTPStatus(error.status_code).phrase)
    detail = error.detail if error.detail != kind.title else None
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of the first route with this path, and a path may have several.
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
    return _respond(request, kind, detail, headers=headers)


def _methods(request: Request) -> set[str]:
    """Return the methods of every route of this path, as the header Allow lists them (RFC 9110, section 10.2.1)."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    methods = {"OPTIONS"}
    for route in iter_route_contexts(request.app.routes):
        if route.methods and route.path and compile_path(route.path)[0].match(path):
            methods |= route.methods
    return methods | {"HEAD"} if "GET" in methods else methods


def _on_unexpected(request: Request, _error: Exception) -> Response:
    return _respond(request, Kind(500, "", "Internal Server Error"), "Internal error; it has been logged.")


def _field_problem(item: Mapping[str, Any]) -> FieldProblem:
    location, *path = item["loc"]
    # Pydantic's message for a ValueError of ours is written for programmers.
    message = str(item["ctx"]["error"] if item["type"] == "value_error" else item["msg"])
    if item["type"] == "json_invalid":
        # For invalid JSON, the path is a position in the text.
        message, path = f"Invalid JSON at character {path[0]}", []
    # The name of an unknown field can be very long.
    names = (str(part)[:100].replace("~", "~0").replace("/", "~1") for part in path)
    return FieldProblem(location=location, pointer="".join(f"/{name}" for name in names), message=message)


def _respond(
    request: Request,
    kind: Kind,
    detail: str | None,
    *,
    errors: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    problem = Problem(
        type=f"/problems/{kind.slug}" if kind.slug else "about:blank",
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=quote(request.scope["path"], safe="/:@!$&'()*+,;=~"),
        errors=errors,
    )
    content = problem.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, kind.status, headers=headers, media_type=MEDIA_TYPE)


# Each gets the request and the error.
HANDLERS: dict[type[Exception], Callable[..., Response]] = {
    DomainError: _on_domain_error,
    IntegrityError: _on_integrity_error,
    OperationalError: _on_unavailable,
    PoolTimeoutError: _on_unavailable,
    RequestValidationError: _on_invalid_request,
    HTTPException: _on_http_exception,
    # Starlette raises the exception again after the response, and the server logs it with its traceback.
    Exception: _on_unexpected,
}
