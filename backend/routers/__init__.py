"""The routes under /api/v1, all of them behind the token."""

from fastapi import APIRouter, Depends

from backend.dependencies import require_token
from backend.routers import companies, user_settings, users

api = APIRouter(prefix="/api/v1", dependencies=[Depends(require_token)])
api.include_router(companies.router)
api.include_router(users.router)
api.include_router(user_settings.router)
