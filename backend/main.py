"""The application: routers, error mapping, and the database made ready at the start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import cast

from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import Engine
from starlette.types import Message, Receive, Scope, Send

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
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
        elif scope["type"] == "http" and (refusal := refusal_of_size(scope, LARGEST_BODY)):
            await refusal(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan: a mistake in configuration ends the start with its lines and no traceback."""
        # Starlette reports a failed start with a traceback, before it lets the error out: hold the report back.
        held: list[Message] = []

        async def hold_failure(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                held.append(message)
            else:
                await send(message)

        try:
            await super().__call__(scope, receive, hold_failure)
        except UserError as mistake:
            await send({"type": "lifespan.startup.failed", "message": str(mistake)})
            # A server has been told; whoever runs the lifespan by itself, as a test's client does, learns it so.
            raise RuntimeError(str(mistake)) from None
        except BaseException:
            for message in held:
                await send(message)
            raise


def create_app(settings: Settings | None = None, *, engine: Engine | None = None) -> FastAPI:
    """Build the application, for `uvicorn --factory backend.main:create_app`.

    Settings are read where none are given. An engine that is given is used and left open; tests have their seam here.
    Raises UserError, which ends a process with a plain line.
    """
    settings = settings or load_settings()
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
