"""The application: routers, error mapping, and the database made ready at the start."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from multiprocessing import parent_process
from typing import cast

from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import Engine
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE

from backend import routers
from backend.config import Settings, load_settings
from backend.database import connect
from backend.errors import UserError
from backend.routers import health
from backend.routers.problems import install_problems, refusal_of_size
from backend.startup import start_database, tell_drift

LARGEST_BODY = 1024 * 1024  # bytes; what the API takes is JSON of a few kilobytes


class Application(FastAPI):
    """FastAPI, but its refusals before any route are as plain as those of the routes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := refusal_of_size(scope, LARGEST_BODY)):
            await refusal(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def settings_or_exit() -> Settings:
    """Read the settings for a server's factory, where a mistake ends the process with its lines."""
    try:
        return load_settings()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        # uvicorn would start a worker that ends with any other code than this again, for ever.
        sys.exit(1 if parent_process() is None else STARTUP_FAILURE)


def report_plainly(app: ASGIApp) -> ASGIApp:
    """Have a server report a mistake in the configuration by its lines, where Starlette would send a traceback."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def report(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, UserError):
                message = {**message, "message": str(error)}
            await send(message)

        await app(scope, receive, report if scope["type"] == "lifespan" else send)

    return call


def create_app(settings: Settings | None = None, *, engine: Engine | None = None) -> FastAPI:
    """Build the application, for `uvicorn --factory backend.main:create_app`.

    A server calls it without settings; then they are read, and a mistake in them ends the process. An engine that is
    given is used and not disposed of, which is how tests choose their database.
    """
    settings = settings or settings_or_exit()
    owned = None if engine else connect(settings.url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(start_database, app.state.engine, settings)
        tell_drift(app.state.engine, settings)
        try:
            yield
        finally:
            if owned:
                owned.dispose()

    app = Application(
        title="Procore integrator",
        summary="Companies, their people and what they let us do with Procore.",
        version="0.1.0",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        max_body_size=LARGEST_BODY,
    )
    app.add_middleware(report_plainly)
    app.state.engine = engine or owned
    app.state.probes = CapacityLimiter(2)
    app.state.api_token = settings.api_token.get_secret_value() if settings.api_token else None
    app.include_router(health.router)
    app.include_router(routers.api)
    install_problems(app)
    install_docs(app)
    return app


def install_docs(app: FastAPI) -> None:
    """Serve /docs with assets of our own, so that it works with no network."""
    assets = files("fastapi_offline") / "static"
    app.mount("/docs/assets", StaticFiles(directory=str(assets)), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        root = cast("str", request.scope.get("root_path", ""))
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_js_url=f"{root}/docs/assets/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/assets/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/assets/favicon.png",
            swagger_ui_parameters={"persistAuthorization": True},
        )
