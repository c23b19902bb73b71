"""The application for tests: on a given engine, without settings from this machine's `.env`."""

from collections.abc import Callable

from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine

from backend.config import AppEnv, Settings
from backend.main import create_app

Connect = Callable[..., Engine]

TOKEN = "a token of more than thirty-two characters".replace(" ", "-")


def make_app(engine: Engine, *, api_token: str | None = None) -> FastAPI:
    """Make an application on this engine; with a token, requests must carry it."""
    settings = Settings(
        _env_file=None,
        app_env=AppEnv.TEST,
        database_url=engine.url,
        api_token=SecretStr(api_token) if api_token else None,
    )
    return create_app(settings, engine=engine)
