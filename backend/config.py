"""The settings, from the environment and from `.env` at the root, then `backend/.env`.

A name that stands in several places is taken from the first of: the environment, `.env`, `backend/.env`. An empty
value is an absent one, and an empty value in the environment hides what a file says. The files are found by their
place beside this package, whatever the current directory is.
"""

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Self

from dotenv.parser import parse_stream
from psycopg import Error as DriverError
from psycopg.conninfo import make_conninfo
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from backend.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# Read in this order, so that the file at the root wins.
ENV_FILES = (ROOT / "backend" / ".env", ROOT / ".env")

URL_SHAPE = (
    "postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME, with @ : / % # ? in the password percent-encoded"
)

LARGEST_PORT = 65535
Port = Annotated[int, Field(ge=1, le=LARGEST_PORT)]


class AppEnv(StrEnum):
    DEVELOPMENT = "development"
    TEST = "test"
    PRODUCTION = "production"


class LiteralDotEnv(DotEnvSettingsSource):
    """`.env` files read as Compose reads them: what stands in single quotes is taken as it is, `${X}` included.

    A line that cannot be read is an error and not, as python-dotenv has it, a warning.
    """

    def _read_env_file(self, file_path: Path) -> Mapping[str, str | None]:
        values: dict[str, str | None] = {}
        try:
            text = file_path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UserError(f"{file_path} cannot be read: {reason}.") from None
        for binding in parse_stream(StringIO(text)):
            if binding.error:
                line = binding.original.line
                raise UserError(
                    f"{file_path}, line {line}, cannot be read: write NAME='value', and \\' for a single quote."
                )
            if binding.key is not None:
                values[binding.key.lower()] = binding.value
        return values


class Settings(BaseSettings):
    """Every setting of the API. Its name in the environment is the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_file=(),  # pydantic's own reader has nothing to read: see settings_customise_sources
        extra="ignore",  # `.env` also holds what only Compose and the tests read
        hide_input_in_errors=True,
        frozen=True,
    )

    app_env: AppEnv = AppEnv.DEVELOPMENT
    database_url: SecretStr | None = None
    postgres_host: str | None = None
    postgres_port: Port | None = None
    postgres_user: str = "postgres"
    postgres_password: SecretStr = SecretStr("postgres")
    postgres_db: str = "procore_integrator"
    db_port: Port = 54320
    """Where Compose publishes its database on 127.0.0.1."""
    database_pool_size: Annotated[int, Field(ge=1, le=500)] = 10
    """How many connections each worker process keeps for requests."""
    api_port: Port = 8000
    api_token: SecretStr | None = None
    """The bearer token that guards /api/v1; without one, which production refuses, the API is open."""
    database_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 60
    """How long a start waits for the database to answer."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        asked_for = getattr(dotenv_settings, "env_file", ())  # by `Settings(_env_file=...)`
        env_file = ENV_FILES if asked_for == () else asked_for
        return init_settings, env_settings, LiteralDotEnv(settings_cls, env_file=env_file)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}

    @field_validator("app_env", mode="before")
    @classmethod
    def _known_environment(cls, value: object) -> object:
        if value not in tuple(AppEnv):
            raise ValueError(f"is {value!r}; it must be development, test or production")
        return value

    @field_validator("postgres_host")
    @classmethod
    def _host_alone(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("/", "@")):
            is_address = value.count(":") > 1  # IPv6
            if re.search(r"[@\s/]", value) or (":" in value and not is_address):
                raise ValueError(
                    "must be a host's name or address, or a socket's directory, and nothing more"
                )
        return value

    @field_validator("database_url")
    @classmethod
    def _well_formed_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_url(value.get_secret_value())
        return value

    @field_validator("api_token")
    @classmethod
    def _strong_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            token = value.get_secret_value()
            if len(token) < 32:  # noqa: PLR2004  what the message says
                raise ValueError("is shorter than 32 characters; make one with `openssl rand -hex 32`")
            if not (token.isascii() and token.isprintable()) or " " in token:
                raise ValueError(
                    "must be printable ASCII without spaces; make one with `openssl rand -hex 32`"
                )
        return value

    @model_validator(mode="after")
    def _fit_for_production(self) -> Self:
        if self.app_env is AppEnv.PRODUCTION:
            if self.api_token is None:
                raise ValueError(
                    "API_TOKEN is required in production; make one with `openssl rand -hex 32` and set it"
                )
            if not self.is_database_configured:
                raise ValueError(
                    "DATABASE_URL (or POSTGRES_HOST and its like) is required in production; set it"
                )
        return self

    @property
    def is_database_configured(self) -> bool:
        """Whether a database is named; POSTGRES_USER, _PASSWORD and _DB alone only describe Compose's."""
        return any((self.database_url, self.postgres_host, self.postgres_port))

    @property
    def url(self) -> URL:
        """The database to use: DATABASE_URL, or its parts, whose defaults are Compose's database on DB_PORT."""
        if self.database_url is not None:
            return parse_url(self.database_url.get_secret_value())
        host = self.postgres_host or "127.0.0.1"
        # The directory of a socket is no host to a URL: it would not survive being written and read again.
        is_socket = host.startswith(("/", "@"))
        default_port = self.db_port if self.postgres_host is None else 5432
        return URL.create(
            "postgresql+psycopg",
            username=self.postgres_user,
            password=self.postgres_password.get_secret_value(),
            host=None if is_socket else host,
            port=self.postgres_port or default_port,
            database=self.postgres_db,
            query={"host": host} if is_socket else {},
        )


def parse_url(text: str) -> URL:
    """Read a database's URL, for psycopg whether or not it says so. Raises ValueError, which never quotes the text."""
    text = text.strip()
    try:
        text.encode()
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(f"is not a database's URL; it must look like {URL_SHAPE}") from None
    if url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError(f"is not for PostgreSQL through psycopg; it must look like {URL_SHAPE}")
    if url.port is not None and not 1 <= url.port <= LARGEST_PORT:
        raise ValueError(f"has a port that is none; it must look like {URL_SHAPE}")
    # An unencoded @ in the password moves part of it into the host or the name, where messages would show it.
    if not url.database or text.count("@") > 1:
        raise ValueError(f"is not a complete URL; it must look like {URL_SHAPE}")
    url = url.set(drivername="postgresql+psycopg")
    try:
        make_conninfo(**url.get_dialect()().create_connect_args(url)[1])
    except (ArgumentError, ValueError, DriverError) as error:
        parameter = re.search(r'invalid connection option "(\w+)"', str(error))
        which = f" ({parameter[1]})" if parameter else ""
        raise ValueError(f"has a parameter that libpq does not know or cannot read{which}") from None
    return url


def load_settings(**values: Any) -> Settings:  # noqa: ANN401  whatever a field takes
    """Read the settings. Raises UserError, a line for each mistake, with no value that could be secret."""
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [_sentence(problem["loc"], problem["msg"]) for problem in error.errors(include_input=False)]
        raise UserError("\n".join(lines)) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return f"{message}."
    name = str(location[0]).upper()
    if not message.startswith(("is ", "must ", "has ")):
        message = f"is not right: {message[0].lower()}{message[1:]}"
    return f"{name} {message}. Set it in the environment or in {os.path.relpath(ENV_FILES[-1])}."
