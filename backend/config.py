"""The settings, read from the environment, `.env` at the root, and `backend/.env`.

The environment wins over `.env`, which wins over `backend/.env`. An empty value counts as absent, and an empty value
in the environment hides the one in a file. The files are found next to this package, not in the current directory.

`from backend.config import settings` reads the settings of this process on first use, and then keeps them.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from dotenv.parser import parse_stream
from pydantic import Field, PlainValidator, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy.engine import URL

from backend.database_url import LARGEST_PORT, parse_url, url_of
from backend.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# Read in this order, so that the file at the root wins.
ENV_FILES = (ROOT / "backend" / ".env", ROOT / ".env")

Port = Annotated[int, Field(ge=1, le=LARGEST_PORT)]


class AppEnv(StrEnum):
    DEVELOPMENT = "development"
    TEST = "test"
    PRODUCTION = "production"


def _read_url(value: object) -> URL:
    return value if isinstance(value, URL) else parse_url(str(value))


def _url_of_parts(values: dict[str, Any]) -> URL:
    host = values["postgres_host"]
    port = values["postgres_port"] or (values["db_port"] if host is None else 5432)
    return url_of(
        {
            "user": values["postgres_user"],
            "password": values["postgres_password"].get_secret_value(),
            "host": host or "127.0.0.1",
            "port": str(port),
            "dbname": values["postgres_db"],
        }
    )


def read_env_file(path: Path) -> dict[str, str | None]:
    """Read a `.env` file as Compose does: a value in single quotes is taken literally, `${X}` included.

    An invalid line raises UserError; python-dotenv would only warn. A missing file counts as empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{path} cannot be read: {reason}.") from None
    bindings = list(parse_stream(StringIO(text)))
    if wrong := [binding for binding in bindings if binding.error]:
        raise UserError(
            f"{path}, line {wrong[0].original.line}, cannot be read: write NAME='value', and \\' for a single quote."
        )
    return {binding.key: binding.value for binding in bindings if binding.key is not None}


class Settings(BaseSettings):
    """Every setting of the API. The environment variable is the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_file=(),  # disables pydantic's own reader: see settings_customise_sources
        extra="ignore",  # `.env` also has settings that only Compose and the tests read
        hide_input_in_errors=True,
        frozen=True,
    )

    app_env: AppEnv = AppEnv.DEVELOPMENT
    postgres_host: str | None = None
    postgres_port: Port | None = None
    postgres_user: str = "postgres"
    postgres_password: SecretStr = SecretStr("postgres")
    postgres_db: str = "procore_integrator"
    db_port: Port = 54320
    """The port on 127.0.0.1 where Compose publishes its database."""
    database_pool_size: Annotated[int, Field(ge=1, le=500)] = 10
    """How many connections each worker process keeps for requests."""
    database_url: Annotated[URL, NoDecode, PlainValidator(_read_url)] = Field(
        default_factory=_url_of_parts, repr=False
    )
    """The database to use. If it is not set, the URL is built from its parts; they default to Compose's database."""
    api_port: Annotated[int, Field(ge=0, le=LARGEST_PORT)] = 8000
    """The port where `serve` listens; with 0 the system chooses one."""
    api_token: SecretStr | None = None
    """The bearer token that protects /api/v1. Without one the API is open; production requires one."""
    database_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 60
    """How long the application waits for the database at startup."""
    web_concurrency: Annotated[int, Field(ge=1, le=1000)] = 1
    """The number of worker processes; with --reload it is always one."""
    root_path: str = ""
    """The path prefix that a proxy in front of the API removes: `/procore`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        files: tuple[Path, ...] = ENV_FILES
        # `Settings(_env_file=None)` reads no file.
        if isinstance(dotenv_settings, DotEnvSettingsSource) and dotenv_settings.env_file is None:
            files = ()
        values = {name.lower(): value for file in files for name, value in read_env_file(file).items()}
        return init_settings, env_settings, InitSettingsSource(settings_cls, values)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value is not None and value != ""}

    @field_validator("postgres_host")
    @classmethod
    def _host_alone(cls, value: str | None) -> str | None:
        if value is None or value.startswith(("/", "@")):
            return value
        if bracketed := re.fullmatch(r"\[([\da-fA-F:.]+(%\w+)?)\]", value):
            return bracketed[1]
        is_address = value.count(":") > 1  # IPv6
        if re.search(r"[@\s/\[\]]", value) or (":" in value and not is_address):
            raise ValueError("must be only a host name, an address or a socket directory")
        return value

    @field_validator("api_token")
    @classmethod
    def _strong_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch("[!-~]{32,}", value.get_secret_value()):
            raise ValueError(
                "must be 32 or more ASCII characters without spaces; make one with `openssl rand -hex 32`"
            )
        return value

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/[^/\s?#]+)+", value):
            raise ValueError("must be a path such as /procore, with a leading slash and no trailing slash")
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
                    "DATABASE_URL (or POSTGRES_HOST/POSTGRES_PORT) is required in production; set it"
                )
        return self

    @property
    def is_database_configured(self) -> bool:
        """Whether a database is configured; POSTGRES_USER, _PASSWORD and _DB alone only describe Compose's."""
        return not self.model_fields_set.isdisjoint({"database_url", "postgres_host", "postgres_port"})


def load_settings(options: Mapping[str, str] | None = None, /, **values: Any) -> Settings:
    """Read the settings. Raises UserError with one line per mistake; no line shows a value that could be secret.

    `options` names the command's option for each of the values that was given by one.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [
            _sentence(problem["loc"], problem["msg"], options or {})
            for problem in error.errors(include_input=False)
            if problem["type"]
            != "default_factory_not_called"  # caused by another field's mistake, which has its own line
        ]
        raise UserError("\n".join(lines)) from None


@cache
def get_settings() -> Settings:
    """Return the settings of this process, which are read on the first call. Raises UserError."""
    return load_settings()


if TYPE_CHECKING:
    settings: Settings


def __getattr__(name: str) -> Settings:
    """Provide `settings` without reading anything when this module is imported (PEP 562)."""
    if name == "settings":
        return get_settings()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _sentence(location: tuple[int | str, ...], message: str, options: Mapping[str, str]) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return f"{message}."
    name = str(location[0])
    if not message.startswith(("is ", "must ", "has ")):
        message = f"is invalid: {message[0].lower()}{message[1:]}"
    if name in options:
        return f"{options[name]} {message}."
    return f"{name.upper()} {message}. Correct it in the environment, .env or backend/.env."
