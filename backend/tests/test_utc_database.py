"""The column type and the pinned session, on servers and sessions that would have it otherwise."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from sqlalchemy import Connection, Engine, bindparam, create_engine, event, func, insert, select, text
from sqlalchemy.exc import CompileError, StatementError
from sqlalchemy.pool import NullPool, StaticPool

from backend.database import SessionLocal
from backend.models.models import Company, UsageLog
from backend.tests.application import Connect
from backend.utc import UtcDateTime, pin_utc

NEW_YORK = ZoneInfo("America/New_York")
FIRST = datetime(2024, 11, 3, 1, 30, tzinfo=NEW_YORK)
SECOND = FIRST.replace(fold=1)


def zone(connection: Connection) -> tuple[str, str]:
    names = ("timezone", "datestyle")
    timezone, style = (str(connection.scalar(text(f"SHOW {name}"))) for name in names)
    return timezone, style


def assert_pinned(engine: Engine) -> None:
    with engine.connect() as connection:
        assert zone(connection) == ("UTC", "ISO, MDY")
        connection.rollback()
        assert zone(connection) == ("UTC", "ISO, MDY")
        assert connection.scalar(text("SELECT now()")).tzinfo is UTC


def test_engine_is_handed_back(connect_pinned: Connect, postgres_url: str) -> None:
    engine = create_engine(postgres_url)

    assert pin_utc(engine) is engine


def test_who_listens_for_new_connections_finds_them_pinned(connect_pinned: Connect) -> None:
    engine = connect_pinned(connect_args={"options": "-c timezone=America/New_York"})
    seen: list[bytes | None] = []
    event.listen(engine, "connect", lambda raw, _: seen.append(raw.pgconn.parameter_status(b"TimeZone")))
    engine.connect().close()

    assert seen == [b"UTC"]


def test_transactions_are_transactions_all_the_same(connect_pinned: Connect) -> None:
    """The pin is set outside any transaction, and what comes after it must not stay there."""
    with connect_pinned().connect() as connection:
        connection.execute(text("CREATE TABLE gone ()"))
        connection.rollback()

        assert connection.scalar(text("SELECT to_regclass('gone')")) is None


def test_zone_of_the_connection_options_loses(connect_pinned: Connect) -> None:
    options = {"options": "-c timezone=America/New_York -c datestyle=German"}

    assert_pinned(connect_pinned(connect_args=options))


def test_zone_of_pgtz_loses(connect_pinned: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Kathmandu")

    assert_pinned(connect_pinned())


def test_zone_of_the_database_loses(engine: Engine) -> None:
    with engine.begin() as connection:
        name = engine.url.database
        connection.execute(text(f"ALTER DATABASE \"{name}\" SET timezone = 'Australia/Lord_Howe'"))
        connection.execute(text(f"ALTER DATABASE \"{name}\" SET datestyle = 'Postgres, DMY'"))
    engine.dispose()

    assert_pinned(engine)


def test_zone_of_the_role_in_the_database_loses(engine: Engine) -> None:
    """It beats the database's and the role's own, and `ALTER ROLE` alone is refused to ordinary roles."""
    with engine.begin() as connection:
        connection.execute(
            text(
                f"ALTER ROLE CURRENT_USER IN DATABASE \"{engine.url.database}\" SET timezone = 'Pacific/Apia'"
            )
        )
    engine.dispose()

    assert_pinned(engine)


def test_connection_that_was_made_before_the_engine_was_pinned_is_pinned_at_checkout(
    postgres_url: str,
) -> None:
    options = {"options": "-c timezone=America/New_York"}
    engine = create_engine(postgres_url, pool_size=1, max_overflow=0, connect_args=options)
    with engine.connect() as connection:
        assert zone(connection)[0] == "America/New_York"
        before = connection.scalar(text("SELECT pg_backend_pid()"))
    pin_utc(engine)

    with engine.connect() as connection:
        connection.execute(text("SET LOCAL timezone = 'America/New_York'"))
        assert connection.scalar(text("SELECT now()")).tzinfo is UTC
        assert connection.scalar(text("SELECT pg_backend_pid()")) == before
    assert_pinned(engine)
    engine.dispose()


def test_session_that_another_client_shares_is_repaired_at_checkout(
    connect_pinned: Connect, postgres_url: str
) -> None:
    """As behind a pooler in transaction mode, where a server connection passes from client to client."""
    shared = psycopg.connect(postgres_url)
    engine = connect_pinned(creator=lambda: shared, poolclass=StaticPool)
    for statement in ("SET TIME ZONE 'America/New_York'", "SET datestyle = 'German'", "RESET ALL"):
        assert_pinned(engine)
        shared.execute(statement)
        shared.commit()
    assert_pinned(engine)
    shared.close()


def test_pin_outlives_the_pools_rollback(connect_pinned: Connect) -> None:
    options = {"options": "-c timezone=America/New_York"}
    engine = connect_pinned(connect_args=options, pool_size=1, max_overflow=0)
    for _ in range(2):
        assert_pinned(engine)


def test_pin_holds_under_autocommit_and_without_a_pool(connect_pinned: Connect) -> None:
    options = {"options": "-c timezone=America/New_York"}
    engine = connect_pinned(connect_args=options, isolation_level="AUTOCOMMIT", poolclass=NullPool)

    assert_pinned(engine)
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection.autocommit  # type: ignore[union-attr]  # it is open


@pytest.mark.parametrize("leak", ["SET TIME ZONE 'America/New_York'", "SET datestyle = 'SQL, DMY'"])
def test_committed_setting_does_not_leak_to_the_pools_next_user(connect_pinned: Connect, leak: str) -> None:
    engine = connect_pinned(pool_size=1, max_overflow=0)
    with engine.begin() as connection:
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
        connection.execute(text(leak))

    with engine.connect() as connection:
        assert zone(connection) == ("UTC", "ISO, MDY")
        assert connection.scalar(text("SELECT pg_backend_pid()")) == backend


def test_session_left_in_an_open_transaction_is_replaced(connect_pinned: Connect) -> None:
    """Where the pool does not roll back, a SET could not be sure to last: a new connection is."""
    engine = connect_pinned(pool_size=1, max_overflow=0, pool_reset_on_return=None)
    raw = engine.raw_connection()
    raw.driver_connection.execute("SET TIME ZONE 'America/New_York'")  # type: ignore[union-attr]  # psycopg's
    raw.close()

    assert_pinned(engine)


def test_two_sides_of_a_fold_come_back_apart(engine: Engine) -> None:
    with SessionLocal(bind=engine) as session:
        companies = [Company(name="x", created_at=at, updated_at=at) for at in (FIRST, SECOND)]
        session.add_all(companies)
        session.commit()
        one, other = (company.created_at for company in companies)

        assert other - one == timedelta(hours=1)
        assert {one.tzinfo, other.tzinfo} == {UTC}
        stored = select(func.extract("epoch", Company.created_at) * 1_000_000).order_by(Company.id)
        assert [int(value) for value in session.scalars(stored)] == [
            1_730_611_800_000_000,
            1_730_615_400_000_000,
        ]


@pytest.mark.parametrize(
    "value",
    [datetime(2024, 1, 1), date(2024, 1, 1), "2024-01-01T00:00:00Z", 0],  # noqa: DTZ001 - the mistake under test
)
@pytest.mark.parametrize("rows", [1, 2])
def test_what_is_no_instant_is_refused_before_it_is_sent(engine: Engine, value: object, rows: int) -> None:
    with engine.connect() as connection:
        with pytest.raises(StatementError):
            connection.execute(insert(Company), [{"name": "x", "created_at": value}] * rows)

        assert connection.scalar(select(func.count()).select_from(Company)) == 0


@pytest.mark.parametrize("value", [datetime(2024, 1, 1), date(2024, 1, 1), "2024-01-01"])  # noqa: DTZ001 - likewise
def test_comparison_with_what_is_no_instant_is_refused(engine: Engine, value: Any) -> None:  # noqa: ANN401 - anything at all
    with engine.connect() as connection, pytest.raises(StatementError):
        connection.execute(select(Company.id).where(Company.created_at > value))


def test_value_that_is_written_into_a_statement_is_an_instant_too(engine: Engine) -> None:
    def written(at: datetime) -> str:
        literal = select(bindparam("at", at, type_=UtcDateTime()))
        return str(literal.compile(engine, compile_kwargs={"literal_binds": True}))

    assert "'2024-11-03 06:30:00+00:00'" in written(SECOND)
    with pytest.raises(CompileError) as caught:
        written(datetime(2024, 1, 1))  # noqa: DTZ001 - the mistake under test
    assert "without an offset" in str(caught.value.__cause__)


def test_arithmetic_with_an_interval_gives_an_instant(engine: Engine) -> None:
    at = datetime(2024, 3, 9, 12, tzinfo=UTC)
    with engine.begin() as connection:
        connection.execute(insert(Company).values(name="x", created_at=at))
        day_before = connection.scalar(select(Company.created_at - timedelta(days=1)))

    assert day_before == at - timedelta(days=1)
    assert day_before.tzinfo is UTC


def test_value_of_an_engine_that_is_not_pinned_is_utc_all_the_same(postgres_url: str) -> None:
    """There the type itself converts what the driver gives in the session's zone."""
    engine = create_engine(postgres_url, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL TIME ZONE 'America/New_York'"))
        assert connection.scalar(text("SELECT now()")).tzinfo == NEW_YORK
        query = text("SELECT timestamptz '2024-11-03 05:30:00+00' AS at").columns(at=UtcDateTime())

        at = connection.scalar(query)
        assert at == datetime(2024, 11, 3, 5, 30, tzinfo=UTC)
        assert at.tzinfo is UTC


def test_every_timestamp_of_the_models_is_of_the_utc_type() -> None:
    columns = [
        column
        for table in Company.metadata.tables.values()
        for column in table.c
        if column.name.endswith("_at")
    ]

    assert UsageLog.__table__.c.created_at in columns
    assert all(type(column.type) is UtcDateTime for column in columns)
