"""`settings`, `engine`, `SessionLocal`, `get_db` and `init_db` work without arguments, on the configured database."""

from collections.abc import Iterator

import pytest
from fastapi import Depends
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from backend import config, database
from backend.config import Settings
from backend.database import SessionLocal, get_db, init_db
from backend.models.models import Company, User
from backend.tests.application import make_app
from backend.tests.support import run_python


@pytest.fixture
def configured(empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Configure an empty database."""
    monkeypatch.setenv("DATABASE_URL", empty_engine.url.render_as_string(hide_password=False))
    forget()
    yield empty_engine
    database.default_engine().dispose()
    forget()


def forget() -> None:
    config.get_settings.cache_clear()
    database.default_engine.cache_clear()
    database.connected_engine.cache_clear()


def test_settings_and_engine_are_made_at_first_use_and_once(configured: Engine) -> None:
    from backend.config import settings  # noqa: PLC0415  the line under test
    from backend.database import engine  # noqa: PLC0415  the line under test

    assert isinstance(settings, Settings)
    assert create_engine(settings.database_url).url.database == configured.url.database
    assert engine is database.engine
    assert engine.url.database == configured.url.database


def test_init_db_and_a_session_need_no_argument(configured: Engine) -> None:
    init_db()

    with SessionLocal() as session:
        session.add(Company(name="Acme"))
        session.commit()
    db = next(get_db())
    assert db.query(Company).count() == 1
    assert db.query(User).count() == 0
    db.close()
    with configured.connect() as connection:
        assert connection.scalar(text("SELECT name FROM companies")) == "Acme"


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Configure a database that does not exist."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@127.0.0.1:1/absent")
    forget()
    yield
    forget()


def test_database_that_does_not_answer_is_a_short_error_with_the_cure_at_its_end(unreachable: None) -> None:
    for statement in ("SessionLocal()", "init_db()"):
        done = run_python("-c", f"from backend.database import SessionLocal, init_db; {statement}")

        lines = done.stderr.splitlines()
        assert len(lines) < 20
        assert lines[-2].startswith("backend.errors.UserError: Could not connect to the database: ")
        assert lines[-1] == "Start it (`docker compose up -d db`), or correct DATABASE_URL or POSTGRES_HOST."


def test_engine_that_is_given_wins_over_the_configured_database(unreachable: None, engine: Engine) -> None:
    assert init_db(engine).is_at_head
    with SessionLocal(bind=engine) as session:
        assert session.connection().engine is engine


def test_session_of_a_route_is_on_its_applications_engine(unreachable: None, engine: Engine) -> None:
    app = make_app(engine)

    @app.get("/database")
    def name(db: Session = Depends(get_db)) -> str:
        return str(db.scalar(text("SELECT current_database()")))

    assert TestClient(app).get("/database").json() == engine.url.database


def test_get_db_can_be_overridden_in_an_application(engine: Engine) -> None:
    app = make_app(engine)

    @app.get("/kind")
    def kind(db: Session = Depends(get_db)) -> str:
        return type(db).__name__

    app.dependency_overrides[get_db] = lambda: "another"
    assert TestClient(app).get("/kind").json() == "str"


def test_importing_reads_no_settings_and_connects_to_nothing() -> None:
    program = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event == 'socket.connect' or (event == 'open' and '.env' in str(arguments[0]).split('/')):\n"
        "        sys.exit(f'{event} {arguments}')\n"
        "sys.addaudithook(watch)\n"
        "import backend.database, backend.main, backend.models.models, backend.scripts.init_db\n"
    )
    done = run_python("-c", program, APP_ENV="nonsense")

    assert (done.returncode, done.stderr) == (0, "")
