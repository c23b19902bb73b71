"""The settings: their sources, which source wins, and the message for a mistake."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from backend import config
from backend.config import (
    ENV_FILES,
    ROOT,
    AppEnv,
    Settings,
    load_settings,
)
from backend.database_url import libpq_parameters, parse_url
from backend.errors import UserError
from backend.startup import describe

HOSTILE = "p@ : / % $ # ' \" ${HOME} end"
SECRET = "do-not-print-this"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings from the environment: these tests are about the files."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def settings_from(*files: Path) -> Settings:
    """Read the settings from these files instead of the developer's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "ENV_FILES", files)
        return load_settings()


def test_defaults_are_composes_database_on_loopback() -> None:
    settings = settings_from()

    assert settings.database_url.render_as_string(hide_password=False) == (
        "postgresql+psycopg://postgres:postgres@127.0.0.1:54320/procore_integrator"
    )
    assert not settings.is_database_configured


def test_files_next_to_the_package_are_read_and_the_one_at_the_root_wins() -> None:
    assert ENV_FILES == (ROOT / "backend" / ".env", ROOT / ".env")


def test_environment_beats_a_later_file_which_beats_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "low").write_text("API_PORT=1\nDB_PORT=1\nPOSTGRES_DB=low\n")
    (tmp_path / "high").write_text("API_PORT=2\nDB_PORT=2\n")
    monkeypatch.setenv("API_PORT", "3")

    settings = settings_from(tmp_path / "low", tmp_path / "high")

    assert (settings.api_port, settings.db_port, settings.postgres_db) == (3, 2, "low")


def test_empty_value_in_the_environment_hides_a_file_and_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose uses this for DATABASE_URL, so that a URL meant for the host does not win inside the container."""
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://u:p@127.0.0.1/host_database\nAPI_TOKEN=\n")
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("POSTGRES_HOST", "db")

    settings = settings_from(tmp_path / ".env")

    assert (settings.database_url.host, settings.database_url.port, settings.database_url.database) == (
        "db",
        5432,
        "procore_integrator",
    )
    assert settings.api_token is None


def test_single_quoted_value_is_taken_as_it_is(tmp_path: Path) -> None:
    written = HOSTILE.replace("'", "\\'")
    (tmp_path / ".env").write_text(f"POSTGRES_PASSWORD='{written}'\n")

    assert settings_from(tmp_path / ".env").database_url.password == HOSTILE


def test_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"API_PORT=1\nPOSTGRES_PASSWORD='{SECRET}'x'\n")

    with pytest.raises(UserError) as caught:
        settings_from(tmp_path / ".env")

    assert f"{tmp_path / '.env'}, line 2, cannot be read" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"POSTGRES_PASSWORD='p\xe4ss'\n")

    with pytest.raises(UserError, match=r"\.env cannot be read: it is not UTF-8"):
        settings_from(tmp_path / ".env")


def test_file_with_windows_line_endings_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfAPI_PORT='8001'\r\nDB_PORT='5000'\r\n")

    settings = settings_from(tmp_path / ".env")

    assert (settings.api_port, settings.db_port) == (8001, 5000)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_means_psycopg(scheme: str) -> None:
    settings = load_settings(_env_file=None, database_url=f"{scheme}://u:p%40ss@h:1/d")

    assert settings.database_url.drivername == "postgresql+psycopg"
    assert settings.database_url.password == "p@ss"


@pytest.mark.parametrize(
    ("url", "announced"),
    [
        ("postgresql://u:p@h/d?application_name=me@laptop", "h:5432/d"),
        ("postgresql://h:1/d?application_name=me@laptop", "h:1/d"),
        ("postgresql://u:p@h1:1,h2:2/d", "h1:1,h2:2/d"),
        ("postgresql://u:p@h1:1,h2:2/d?target_session_attrs=read-write", "h1:1,h2:2/d"),
        ("postgresql://u:p@h1,h2/d", "h1:5432,h2:5432/d"),
        ("postgresql+psycopg://u:p@/d?host=h1,h2&port=6432", "h1:6432,h2:6432/d"),
        ("postgresql://u:p@[::1]:1/d", "[::1]:1/d"),
        ("postgresql://%2Fvar%2Frun:1/d", "/var/run:1/d"),
        ("postgresql:///d", "the local socket, database d"),
        ("postgresql:///d?service=mine", "service mine, database d"),
        ("postgresql:///?host=h&port=1&user=u&password=p&dbname=d", "h:1/d"),
        ("postgresql:///d?hostaddr=10.0.0.1", "10.0.0.1:5432/d"),
        ("postgresql://u:p?x=1@h/d", "h:5432/d"),
        ("postgresql://u:p@h/d?options=-c%20a%3D1%20-c%20b%3D2&application_name=a%2Bb", "h:5432/d"),
    ],
)
def test_url_means_what_it_means_to_libpq(url: str, announced: str) -> None:
    read = load_settings(_env_file=None, database_url=url).database_url
    plain = url.replace("+psycopg", "")

    assert libpq_parameters(read) == conninfo_to_dict(plain) | {
        name: value
        for name, value in libpq_parameters(read).items()
        if name == "port"  # libpq's parser does not fill in default ports
    }
    assert describe(read) == announced
    assert parse_url(read.render_as_string(hide_password=False)) == read


def test_url_is_announced_although_pgport_does_not_fit_its_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1,2")

    assert describe(parse_url("postgresql://h/d")) == "h:1/d"


@pytest.mark.parametrize(
    ("host", "announced"),
    [("[::1]", "[::1]"), ("::1", "[::1]"), ("/var/run", "/var/run"), ("@abstract", "@abstract")],
)
def test_postgres_host_is_a_name_an_address_or_a_directory(host: str, announced: str) -> None:
    url = load_settings(_env_file=None, postgres_host=host).database_url

    assert libpq_parameters(url)["host"] == host.strip("[]")
    assert describe(url) == f"{announced}:5432/procore_integrator"


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        f"mysql://u:{SECRET}@h/d",
        f"postgresql+asyncpg://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}%zz@h/d",
        f"postgresql://u:{SECRET}@h",
        f"postgresql://u:{SECRET}@{SECRET}@h/d",
        f"postgresql://u:p@{SECRET}/x@127.0.0.1:1/d",
        f"postgresql://u:x@{SECRET}:y@h/d",
        f"postgresql://u:{SECRET}@h:5432",
        f"postgresql://u:{SECRET}@?service=mine",
        f"postgresql://u:{SECRET}\udce4@h:5432/d",
    ],
)
def test_malformed_url_is_reported_with_a_cure_and_never_shown(url: str) -> None:
    with pytest.raises(UserError) as caught:
        load_settings(_env_file=None, database_url=url)

    assert str(caught.value).startswith(("DATABASE_URL is not ", "DATABASE_URL has no database name"))
    assert "postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("values", "beginning"),
    [
        ({"database_url": "postgresql://u:p@h:99999/d"}, "DATABASE_URL has an invalid port"),
        ({"database_url": "postgresql://u:p@h:port/d"}, "DATABASE_URL has an invalid port"),
        ({"database_url": "postgresql://u:p@h/d?port=abc"}, "DATABASE_URL has an invalid port"),
        ({"database_url": "postgresql://a,b/d?port=1,2,3"}, "DATABASE_URL has several ports"),
        (
            {"database_url": "postgresql://u:p@h/d?nonsense=1"},
            "DATABASE_URL has a parameter that libpq does not know (nonsense)",
        ),
        ({"postgres_host": "postgresql://u:p@h/d"}, "POSTGRES_HOST must be only a host name"),
        ({"postgres_host": "[::1"}, "POSTGRES_HOST must be only a host name"),
        ({"postgres_host": "h:5432"}, "POSTGRES_HOST must be only a host name"),
        ({"app_env": "prod"}, "APP_ENV is invalid: input should be 'development', 'test' or 'production'"),
        ({"api_token": "x" * 31}, "API_TOKEN must be 32 or more ASCII characters without spaces"),
        ({"api_token": "x" * 32 + " "}, "API_TOKEN must be 32 or more ASCII characters without spaces"),
        ({"api_token": "ü" * 32}, "API_TOKEN must be 32 or more ASCII characters without spaces"),
        ({"api_port": "http"}, "API_PORT is invalid: input should be a valid integer"),
        ({"api_port": "65536"}, "API_PORT is invalid: input should be less than or equal to 65535"),
        ({"database_wait_seconds": "-1"}, "DATABASE_WAIT_SECONDS is invalid"),
        ({"web_concurrency": "0"}, "WEB_CONCURRENCY is invalid"),
        ({"root_path": "procore/"}, "ROOT_PATH must be a path such as /procore"),
        ({"db_port": "x"}, "DB_PORT is invalid"),
        ({"app_env": "production", "postgres_host": "h"}, "API_TOKEN is required in production"),
        ({"app_env": "production", "api_token": "x" * 32}, "DATABASE_URL (or POSTGRES_HOST/POSTGRES_PORT)"),
    ],
)
def test_mistake_is_one_line_that_names_the_setting(values: dict[str, str], beginning: str) -> None:
    with pytest.raises(UserError) as caught:
        load_settings(_env_file=None, **values)

    assert str(caught.value).startswith(beginning)
    assert str(caught.value).count("\n") == 0


def test_production_with_a_token_and_a_database_is_accepted() -> None:
    settings = load_settings(_env_file=None, app_env="production", api_token="x" * 32, postgres_host="h")

    assert settings.app_env is AppEnv.PRODUCTION


def test_secrets_are_not_in_the_settings_representation() -> None:
    settings = load_settings(_env_file=None, api_token=SECRET * 3, postgres_password=SECRET)

    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.database_url)


def test_env_example_names_every_setting_and_reads_as_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    example = ROOT / ".env.example"
    text = example.read_text()

    assert [name for name in Settings.model_fields if f"\n{name.upper()}=" not in text] == []
    assert settings_from(example) == settings_from()
