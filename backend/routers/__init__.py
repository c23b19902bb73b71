"""The routes under /api/v1, all of which need the token and a database connection."""

from fastapi import APIRouter, Depends

from backend.dependencies import require_token, wait_for_connection
from backend.routers import companies, user_settings, users
from backend.routers.openapi import problem_responses

api = APIRouter(
    prefix="/api/v1",
    responses=problem_responses(422),
    # The order matters: a caller without the token must not take a connection. `get_db` starts last and ends first.
    dependencies=[Depends(require_token), Depends(wait_for_connection, scope="function")],
)
api.include_router(companies.router)
api.include_router(users.router)
api.include_router(user_settings.router)
