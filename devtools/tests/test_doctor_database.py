"""What the doctor finds in a database: a real one, as it should be, and with each thing wrong once."""

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text

from backend import migrations
from backend.config import Settings, load_settings
from devtools import database
from devtools.doctor import inside
from devtools.doctor.finding import Finding, State
from freshpg import Server, ensure_database, start_persistent

from .doctoring import Skeleton
from .support import ROOT

SECRET = "do-not-print-this"


@pytest.fixture(autouse=True)
def no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(database, "DIRECTORY", tmp_path / ".dev" / "postgres-18")
    monkeypatch.setattr(inside, "DIRECTORY", tmp_path / ".dev" / "postgres-18")
    monkeypatch.setattr(inside, "PATIENCE_SECONDS", 0.1)
    return tmp_path / ".dev" / "postgres-18"


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def look(settings: Settings) -> dict[str, Finding]:
    return {each.name.partition("/")[2]: each for each in inside.examine_database(settings)}


def look_at(engine: Engine) -> dict[str, Finding]:
    return look(load_settings(_env_file=None, database_url=url_of(engine)))


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for each in statements:
            connection.execute(text(each))


def test_database_as_it_should_be_is_well(engine: Engine) -> None:
    change(engine, f"ALTER DATABASE {engine.url.database} SET timezone = 'UTC'")
    found = look_at(engine)

    assert {name: each.state for name, each in found.items()} == dict.fromkeys(
        ("server", "schema", "drift", "utc", "clock"), State.OK
    )
    place = f"{engine.url.host}:{engine.url.port}/{engine.url.database}"
    assert found["server"].finding.endswith(f" answers at {place}, the one configured.")
    assert found["schema"].finding == f"The schema is at head, {migrations.head()}."


def test_nothing_in_the_database_is_changed(engine: Engine) -> None:
    """Its last transaction that wrote anything was before."""
    statement = text("SELECT string_agg(oid::text || xmin::text, ' ' ORDER BY oid) FROM pg_class")
    with engine.connect() as connection:
        before = connection.scalar(statement)

    assert look_at(engine)["drift"].state is State.OK

    with engine.connect() as connection:
        assert connection.scalar(statement) == before


def test_difference_from_the_models_is_named(engine: Engine) -> None:
    change(
        engine, "ALTER TABLE users ADD nick text", *(f"CREATE TABLE old_{name} (id int)" for name in "abc")
    )

    found = look_at(engine)["drift"]

    assert found.state is State.WRONG
    assert found.finding.startswith("The database differs from the models: ")
    assert found.finding.endswith(" and 1 more.")
    assert found.cure.startswith("`nox -s db_check`")


def test_schema_that_is_behind_is_told_by_how_much(engine: Engine) -> None:
    with engine.begin() as connection:
        migrations.downgrade(connection, "-1")

    found = look_at(engine)["schema"]

    assert (found.state, found.cure) == (State.WRONG, "`nox -s db_init`, or the next start.")
    assert found.finding.startswith("The schema is 1 migration behind, at ")


def test_schema_that_the_code_does_not_know_is_wrong(engine: Engine) -> None:
    change(engine, "UPDATE alembic_version SET version_num = 'feedc0de'")

    found = look_at(engine)["schema"]

    assert found.state is State.WRONG
    assert found.finding == "The schema is at revision feedc0de, which this code does not know."


def test_database_with_nothing_in_it_wants_its_schema(empty_engine: Engine) -> None:
    found = look_at(empty_engine)

    assert (found["schema"].state, found["schema"].cure) == (State.WARNING, "`nox -s db_init`.")
    assert found["drift"].state is State.UNKNOWN


@pytest.mark.parametrize("whose", ["DATABASE", "ROLE IN DATABASE"])
def test_zone_that_sessions_begin_in_is_told_with_the_statement_that_moves_them_back(
    whose: str, engine: Engine
) -> None:
    with engine.connect() as connection:
        user, name = connection.execute(
            text("SELECT quote_ident(current_user), quote_ident(current_database())")
        ).one()
    subject = f"DATABASE {name}" if whose == "DATABASE" else f"ROLE {user} IN DATABASE {name}"
    change(engine, f"ALTER {subject} SET timezone = 'America/New_York'")

    found = look_at(engine)["utc"]

    assert found.state is State.WARNING
    assert found.finding.startswith("Sessions begin in America/New_York.")
    assert found.cure == f"In `nox -s db_shell`: ALTER {subject} SET timezone = 'UTC'"
    change(engine, found.cure.partition(": ")[2])
    assert look_at(engine)["utc"].state is State.OK


def test_zone_of_pgtz_is_told_to_be_the_environments(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Kathmandu")

    found = look_at(engine)["utc"]

    assert found.finding.startswith("Sessions begin in Asia/Kathmandu.")
    assert found.cure == "Unset PGTZ, or take `options` out of DATABASE_URL."


def test_column_that_keeps_no_instants_is_wrong(engine: Engine) -> None:
    change(
        engine,
        "ALTER TABLE usage_logs DROP CONSTRAINT ck_usage_logs_created_at_range",
        "ALTER TABLE usage_logs ALTER created_at TYPE timestamp",
    )

    found = look_at(engine)["utc"]

    assert found.state is State.WRONG
    assert "usage_logs.created_at is timestamp" in found.finding


def test_clock_of_this_machine_that_is_an_hour_behind_is_found(engine: Engine) -> None:
    (found,) = inside.clock(engine, now=lambda: time.time() - 3600)

    assert found.state is State.WRONG
    assert found.finding == "The database's clock is 60 min ahead of this machine's."


def test_lock_on_what_is_looked_at_holds_nobody_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "LOCK_SECONDS", 0.05)
    with ThreadPoolExecutor(1) as pool, engine.begin() as connection:
        connection.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))

        found = pool.submit(look_at, engine).result(timeout=15)

    assert found["schema"].state is State.UNKNOWN
    assert found["schema"].finding == "Another connection holds a lock on what is to be looked at."
    assert found["clock"].state is State.OK


def test_server_that_is_away_is_wrong_and_the_rest_unknown(unused_port: int) -> None:
    found = look(
        load_settings(_env_file=None, database_url=f"postgresql://u:{SECRET}@127.0.0.1:{unused_port}/d")
    )

    assert found["server"].state is State.WRONG
    assert found["server"].finding.startswith(f"The database at 127.0.0.1:{unused_port}/d was not to be had")
    assert found["server"].cure.startswith("Start it (`docker compose up -d db`)")
    assert {each.state for name, each in found.items() if name != "server"} == {State.UNKNOWN}


def test_password_that_the_server_refuses_is_wrong_and_not_shown(embedded: Server) -> None:
    url = make_url(embedded.url).set(drivername="postgresql", password=SECRET, database="postgres")

    found = look(load_settings(_env_file=None, database_url=url.render_as_string(hide_password=False)))

    assert found["server"].state is State.WRONG
    assert "refuses user 'postgres'" in found["server"].finding
    assert SECRET not in str(found)


def test_database_that_is_not_there_is_wrong(embedded: Server) -> None:
    url = make_url(embedded.url).set(drivername="postgresql", database="nowhere")

    found = look(load_settings(_env_file=None, database_url=url.render_as_string(hide_password=False)))

    assert found["server"].finding.startswith("There is no database 'nowhere' at ")
    assert found["server"].cure.startswith("Create it")


def test_where_no_database_is_there_none_is_started(unused_port: int, no_directory: Path) -> None:
    found = look(load_settings(_env_file=None, db_port=unused_port))

    assert {each.state for each in found.values()} == {State.UNKNOWN}
    assert (
        found["server"].finding
        == f"No database answers: none is configured, none is on DB_PORT {unused_port}."
    )
    assert not no_directory.exists()


def test_composes_database_is_that_on_its_port(embedded: Server) -> None:
    url = make_url(embedded.url)

    found = look(
        load_settings(
            _env_file=None, db_port=url.port, postgres_password=url.password, postgres_db="postgres"
        )
    )

    assert found["server"].finding.endswith(f", Compose's, which answers on DB_PORT {url.port}.")


def test_embedded_database_is_looked_at_while_it_runs_and_not_started(
    unused_port: int, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = kept / ".dev" / "postgres-18"
    for module in (database, inside):
        monkeypatch.setattr(module, "DIRECTORY", directory)
    mine = load_settings(_env_file=None, db_port=unused_port)
    with start_persistent(directory) as server:
        ensure_database(server.url, mine.postgres_db)
        running = look(mine)["server"]
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    stopped = look(mine)["server"]

    assert running.state is State.OK
    assert ", embedded, of " in running.finding
    assert stopped.state is State.UNKNOWN
    assert "has one that does not run" in stopped.finding
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


@pytest.fixture
def whole(skeleton: Skeleton) -> Skeleton:
    """Have all of the backend in the checkout, and the environment that runs this as its own."""
    shutil.rmtree(skeleton.root / "backend")
    unwanted = shutil.ignore_patterns("__pycache__", "tests", "e2e", "benchmarks")
    shutil.copytree(ROOT / "backend", skeleton.root / "backend", ignore=unwanted)
    (skeleton.root / ".venv").symlink_to(sys.prefix)
    return skeleton


def test_database_is_asked_through_the_door_in_the_environment_that_is_there(
    whole: Skeleton, engine: Engine
) -> None:
    change(engine, "ALTER TABLE users ADD nick text")
    whole.write(".env", f"DATABASE_URL='{url_of(engine)}'\n")

    found = {each["name"]: each for each in whole.ask("database/*")}

    assert found["database/schema"]["state"] == "ok"
    assert (
        found["database/drift"]["finding"] == "The database differs from the models: column `nick` of users."
    )


def test_mistake_in_a_setting_is_told_as_the_commands_tell_it_and_the_rest_is_unknown(
    whole: Skeleton,
) -> None:
    whole.write(".env", f"APP_ENV='prod'\nAPI_TOKEN='{SECRET}'\n")

    found = whole.ask("[sd]*/[csud]*", API_PORT="1")

    told = [(each["finding"], each["cure"]) for each in found if each["name"] == "settings/checked"]
    assert told == [
        (
            "APP_ENV is 'prod'; it must be development, test or production.",
            "Set it in the environment or in .env.",
        ),
        (
            "API_TOKEN is shorter than 32 characters; make one with `openssl rand -hex 32`.",
            "Set it in the environment or in .env.",
        ),
    ]
    assert {each["state"] for each in found if each["name"].startswith("database/s")} == {"unknown"}


def test_environment_that_cannot_import_the_project_makes_the_database_unknown(whole: Skeleton) -> None:
    whole.write("backend/config.py", f"raise RuntimeError('{SECRET}')\n")

    found = [each for each in whole.ask("database/*") if each["name"] != "database/directory"]

    assert {(each["state"], each["finding"]) for each in found} == {
        ("unknown", ".venv could not ask: RuntimeError.")
    }
