"""The application: its routers, its error handlers, and the preparation of the database at startup."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import parent_process
from operator import attrgetter
from threading import Thread

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from sqlalchemy import Engine
from uvicorn.config import STARTUP_FAILURE

from backend import routers
from backend.config import AppEnv, Settings, load_settings
from backend.database import connect
from backend.errors import UserError
from backend.routers import health
from backend.routers.error_handlers import HANDLERS
from backend.routers.middleware import answer_head, limit_body, report_plainly
from backend.routers.openapi import document_problems, problem_responses
from backend.startup import report_drift, start_database

SPARE_THREADS = 8  # for requests that need no connection, such as the files of /docs


def settings_or_exit() -> Settings:
    """Read the settings; if one is wrong, print the mistake and end the process, as a server's factory should."""
    try:
        return load_settings()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        # uvicorn keeps restarting a worker that exits, unless it exits with this code.
        sys.exit(1 if parent_process() is None else STARTUP_FAILURE)


def create_app(settings: Settings | None = None, *, engine: Engine | None = None) -> FastAPI:
    """Build the application, for `uvicorn --factory backend.main:create_app`.

    A server calls it without settings; then they are read, and a mistake in them ends the process. If an engine is
    passed, the application uses it and does not dispose of it: tests choose their database like this.
    """
    settings = settings or settings_or_exit()
    pool_size = settings.database_pool_size
    # Health checks have their own connections, so they do not wait for requests. Requests wait before they use the
    # pool; a request that waited for the pool itself would occupy a thread.
    options = {"pool_size": pool_size + health.CONNECTIONS, "max_overflow": 0, "pool_timeout": 1}
    owned = None if engine else connect(settings.database_url, **options)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A request that holds a row lock must never wait for a thread while all threads wait for that lock.
        threads = to_thread.current_default_thread_limiter()
        threads.total_tokens = max(threads.total_tokens, pool_size + SPARE_THREADS)
        try:
            await run_in_threadpool(start_database, app.state.engine, settings)
            if settings.app_env is AppEnv.DEVELOPMENT:
                # In a daemon thread, so that neither the start nor the end of the process waits.
                Thread(target=report_drift, args=(app.state.engine,), name="drift", daemon=True).start()
            yield
        finally:
            if owned:
                owned.dispose()

    # FastAPI's own /docs loads its scripts from the Internet.
    app = FastAPIOffline(
        title="Procore integrator",
        summary="Companies, their users, and the users' settings.",
        version="0.1.0",
        lifespan=lifespan,
        redoc_url=None,
        static_url="/docs/assets",
        swagger_ui_parameters={"persistAuthorization": True, "defaultModelsExpandDepth": 0},
        # An operation has the name of its route's function, so that generated clients have readable function names.
        generate_unique_id_function=attrgetter("name"),
        responses=problem_responses(503, "default"),
        exception_handlers=HANDLERS,
    )
    app.state.engine = engine or owned
    app.state.connections = CapacityLimiter(pool_size)
    app.state.health_checks = CapacityLimiter(health.CONNECTIONS)
    app.state.api_token = settings.api_token.get_secret_value() if settings.api_token else None
    for middleware in (report_plainly, limit_body, answer_head):
        app.add_middleware(middleware)
    app.include_router(routers.api)
    app.include_router(health.router)
    document_problems(app)
    app.add_route("/", redirect_to_docs, include_in_schema=False)
    return app


async def redirect_to_docs(request: Request) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")
