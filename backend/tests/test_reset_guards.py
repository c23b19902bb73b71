"""Whose a database is, is known before anything in it is dropped: by settings, host, its own mark, or a typed name."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from backend import migrations
from backend.config import ROOT, load_settings
from backend.database import connect, init_db, reset_db, schema_state
from backend.errors import UserError
from backend.migrations import environment_marker
from backend.migrations.drift import differences
from backend.scripts import init_db as init_script
from backend.scripts import reset_db as reset_script
from backend.scripts import safety
from freshpg import sqlalchemy_url, start_ephemeral

TOKEN = "t" * 32


@pytest.fixture
def configured(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A development database at head, which the settings name and which bears its mark."""
    monkeypatch.setenv("DATABASE_URL", empty_url)
    init_script.main([])
    engine = connect(empty_url)
    yield engine
    engine.dispose()


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def ask(engine: Engine, query: str) -> object:
    with engine.connect() as connection:
        found: object = connection.scalar(text(query))
    return found


def is_whole(engine: Engine) -> bool:
    with engine.connect() as connection:
        return schema_state(connection).is_at_head and differences(connection) == []


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        reset_script.main(list(arguments))
    return str(caught.value)


def test_production_is_refused_even_when_the_name_is_typed(
    configured: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("API_TOKEN", TOKEN)

    assert "production database is never reset" in refused("--yes-drop", str(configured.url.database))
    assert is_whole(configured)


def test_database_that_says_it_is_productions_is_refused_whatever_the_settings_say(
    configured: Engine,
) -> None:
    """A laptop whose DATABASE_URL leads, perhaps by a tunnel on loopback, to the real one."""
    init_db(configured, environment="production")

    for arguments in ([], ["--yes-drop", str(configured.url.database)]):
        said = refused(*arguments)
        assert "by its own mark it is production's, whatever APP_ENV says here" in said
    assert is_whole(configured)


def test_mark_survives_a_reset_and_is_that_of_who_did_it(configured: Engine) -> None:
    def mark() -> str | None:
        with configured.connect() as connection:
            return environment_marker.read(connection)

    assert mark() == "development"
    reset_db(configured)
    assert mark() == "development"
    reset_db(configured, environment="test")
    assert mark() == "test"


def test_only_production_marks_what_it_did_not_build(empty_engine: Engine) -> None:
    """A development start on a database that it did not make must not call it its own."""
    init_db(empty_engine)

    def mark_after(environment: str) -> str | None:
        init_db(empty_engine, environment=environment)
        with empty_engine.connect() as connection:
            return environment_marker.read(connection)

    assert mark_after("development") is None
    with empty_engine.begin() as connection:
        migrations.downgrade(connection, "87abf947398d")
    assert mark_after("development") is None, "nor one that it brought along"
    assert mark_after("production") == "production"
    assert mark_after("development") == "production"


def test_mark_that_a_role_may_not_write_is_left_and_the_start_goes_on(empty_engine: Engine) -> None:
    init_db(empty_engine)
    run(empty_engine, f'ALTER DATABASE "{empty_engine.url.database}" SET default_transaction_read_only = on')
    empty_engine.dispose()

    assert init_db(empty_engine, environment="production").is_at_head


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database on this machine, as a container's is not always, which the settings name."""
    with start_ephemeral() as server:
        monkeypatch.setenv("DATABASE_URL", server.url)
        engine = connect(sqlalchemy_url(server.url))
        yield engine
        engine.dispose()


def test_database_on_this_machine_with_its_mark_is_reset_without_more_ado(near: Engine) -> None:
    init_script.main([])
    run(near, "CREATE TABLE old_jobs (id int)")

    reset_script.main([])

    assert is_whole(near)


def test_database_without_a_mark_wants_its_name_typed_once(near: Engine) -> None:
    run(near, "CREATE TABLE somebodys (id int)")

    said = refused()

    assert "It bears no mark of development or test, so it may be somebody else's." in said
    assert "To drop table public.somebodys: `nox -s db_reset -- --yes-drop postgres`." in said
    assert ask(near, "SELECT count(*) FROM somebodys") == 0
    reset_script.main(["--yes-drop", "postgres"])
    reset_script.main([])
    assert is_whole(near)


def test_another_name_than_the_databases_is_refused_and_what_would_go_is_told(configured: Engine) -> None:
    said = refused("--yes-drop", "other")

    assert f"The name typed is 'other' and the database's is {configured.url.database!r}" in said
    assert "table public.companies" in said
    assert is_whole(configured)


@pytest.mark.parametrize(
    ("typed", "is_right"),
    [(None, True), (b"something\n", False), (b"\x04", False), (b"\xff\n", False)],
    ids=str,
)
def test_name_is_asked_at_a_terminal(typed: bytes | None, *, is_right: bool, empty_engine: Engine) -> None:
    run(empty_engine, "CREATE TABLE somebodys (id int)")
    name = f"{empty_engine.url.database}\n".encode()
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed or name)
        done = subprocess.run(
            [sys.executable, "-m", "backend.scripts.reset_db"],
            cwd=ROOT,
            env=os.environ
            | {"DATABASE_URL": empty_engine.url.render_as_string(hide_password=False), "PYTHONIOENCODING": "utf-8"},
            stdin=theirs, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)

    assert done.returncode == (0 if is_right else 1), done.stderr
    assert "What would be done in" in done.stdout
    assert done.stderr.startswith("" if is_right else "Nothing was dropped in ")
    assert ask(empty_engine, "SELECT to_regclass('somebodys') IS NULL") is is_right


def test_nobody_is_asked_where_the_input_is_closed(empty_engine: Engine) -> None:
    run(empty_engine, "CREATE TABLE somebodys (id int)")

    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "backend.scripts.reset_db"],
        cwd=ROOT, env=os.environ | {"DATABASE_URL": empty_engine.url.render_as_string(hide_password=False)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.startswith("Nothing was dropped in ")


@pytest.mark.parametrize(
    ("host", "address", "near"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("127.0.0.2", "127.0.0.2", True),
        ("/run/postgresql", "", True),
        ("@abstract", "", True),
        ("db", "172.18.0.2", True),
        ("localhost", "10.0.0.1", False),  # PGHOSTADDR leads there
        ("db.example.com", "10.0.0.1", False),
        ("127.0.0.1.example.com", "192.0.2.1", False),
        ("somewhere", "", False),
    ],
)
def test_only_loopback_sockets_and_composes_db_are_near(host: str, address: str, *, near: bool) -> None:
    assert safety.is_near(host, address) is near
    assert safety.doubts_of(near=near, marked=True) == (
        [] if near else ["It is neither on this machine nor Compose's, so its name must be typed."]
    )


def test_name_that_a_shell_would_take_apart_is_quoted_in_the_cure(
    configured: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(configured, "COMMENT ON TABLE alembic_version IS NULL")
    monkeypatch.setenv(
        "DATABASE_URL", configured.url.set(database="$x y").render_as_string(hide_password=False)
    )

    with pytest.raises(UserError) as caught:
        safety.refuse_unless_ours(configured, load_settings(), reset_script.RESET, typed_name=None)

    assert str(caught.value).endswith(": `nox -s db_reset -- --yes-drop '$x y'`.")
