"""Pinned sessions, the driver and the column type, as far as `nox -s utc_check` does not cover them."""

import logging
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.postgres import types
from psycopg.pq import Format
from sqlalchemy import Connection, Engine, bindparam, create_engine, event, insert, select, text
from sqlalchemy.exc import CompileError, StatementError
from sqlalchemy.pool import NullPool, StaticPool

from backend.models.models import Company
from backend.tests.application import Connect
from backend.utc import UtcDateTime, pin_utc
from devtools.utc_check.cases import REFUSED_DATETIMES
from devtools.utc_check.checks import FOLLOWS_THE_ZONE, PINNED, settings
from devtools.utc_check.sandbox_schema import plain_connection
from devtools.utc_check.writers_and_readers import driver

NEW_YORK = ZoneInfo("America/New_York")
FOLD = datetime(2024, 11, 3, 1, 30, tzinfo=NEW_YORK)
IN_NEW_YORK = {"options": "-c timezone=America/New_York -c datestyle=German"}


def assert_pinned(engine: Engine) -> None:
    with engine.connect() as connection:
        assert settings(driver(connection)) == PINNED
        connection.rollback()
        assert settings(driver(connection)) == PINNED
        assert connection.scalar(text("SELECT now()")).tzinfo is UTC


def backend_pid(connection: Connection) -> int:
    return driver(connection).info.backend_pid


def test_pin_returns_the_engine_and_other_listeners_see_pinned_connections(engine: Engine) -> None:
    other = create_engine(engine.url, connect_args=IN_NEW_YORK)
    assert pin_utc(other) is other
    seen: list[bytes | None] = []
    event.listen(other, "connect", lambda raw, _: seen.append(raw.pgconn.parameter_status(b"TimeZone")))
    other.connect().close()
    other.dispose()

    assert seen == [b"UTC"]


def test_transactions_still_roll_back(connect_pinned: Connect) -> None:
    """The pin is set in autocommit mode, which must not stay on."""
    with connect_pinned().connect() as connection:
        connection.execute(text("CREATE TABLE gone ()"))
        connection.rollback()

        assert connection.scalar(text("SELECT to_regclass('gone')")) is None


def test_zone_of_the_connection_options_is_overridden(connect_pinned: Connect) -> None:
    assert_pinned(connect_pinned(connect_args=IN_NEW_YORK))


def test_zone_of_pgtz_is_overridden(connect_pinned: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Kathmandu")

    assert_pinned(connect_pinned())


@pytest.mark.parametrize("whose", ["DATABASE {}", "ROLE CURRENT_USER IN DATABASE {}"])
def test_zone_of_the_database_and_of_the_role_are_overridden(engine: Engine, whose: str) -> None:
    altered = f"ALTER {whose}".format(f'"{engine.url.database}"')
    with engine.begin() as connection:
        connection.exec_driver_sql(f"{altered} SET timezone = 'Pacific/Apia'")
        connection.exec_driver_sql(f"{altered} SET datestyle = 'Postgres, DMY'")
    engine.dispose()

    assert_pinned(engine)
    with plain_connection(engine.url) as plain:
        assert settings(plain) == ("Pacific/Apia", "Postgres, DMY")


def test_connection_opened_before_the_engine_was_pinned_is_pinned_at_checkout(engine: Engine) -> None:
    other = create_engine(engine.url, pool_size=1, max_overflow=0, connect_args=IN_NEW_YORK)
    with other.connect() as connection:
        before = backend_pid(connection)
    pin_utc(other)

    with other.connect() as connection:
        connection.execute(text("SET LOCAL timezone = 'America/New_York'"))
        assert connection.scalar(text("SELECT now()")).tzinfo is UTC
        assert backend_pid(connection) == before
    assert_pinned(other)
    other.dispose()


def test_session_that_another_client_shares_is_repaired_at_checkout(
    connect_pinned: Connect, engine: Engine
) -> None:
    """This happens behind a pooler in transaction mode, where clients share a server connection."""
    with plain_connection(engine.url) as shared:
        pinned = connect_pinned(creator=lambda: shared, poolclass=StaticPool)
        for statement in ("SET TIME ZONE 'America/New_York'", "SET datestyle = 'German'"):
            assert_pinned(pinned)
            shared.execute(statement)
            shared.commit()
        assert_pinned(pinned)


def test_pin_survives_the_rollback_of_the_pool(connect_pinned: Connect) -> None:
    engine = connect_pinned(connect_args=IN_NEW_YORK, pool_size=1, max_overflow=0)
    for _ in range(2):
        assert_pinned(engine)


def test_pin_holds_in_autocommit_and_without_a_pool(connect_pinned: Connect) -> None:
    engine = connect_pinned(connect_args=IN_NEW_YORK, isolation_level="AUTOCOMMIT", poolclass=NullPool)

    assert_pinned(engine)
    with engine.connect() as connection:
        assert driver(connection).autocommit


@pytest.mark.parametrize("leak", ["TIME ZONE 'America/New_York'", "datestyle = 'SQL, DMY'"])
def test_committed_setting_does_not_leak_to_the_pools_next_user(connect_pinned: Connect, leak: str) -> None:
    engine = connect_pinned(pool_size=1, max_overflow=0)
    with engine.begin() as connection:
        before = backend_pid(connection)
        connection.exec_driver_sql(f"SET {leak}")

    assert_pinned(engine)
    with engine.connect() as connection:
        assert backend_pid(connection) == before


def test_session_left_in_an_open_transaction_is_replaced(connect_pinned: Connect) -> None:
    """If the pool does not roll back, a rollback could undo the pin."""
    engine = connect_pinned(pool_size=1, max_overflow=0, pool_reset_on_return=None)
    raw = engine.raw_connection()
    raw.driver_connection.execute("SET TIME ZONE 'America/New_York'")  # type: ignore[union-attr]  # psycopg's
    raw.close()

    assert_pinned(engine)


def test_server_side_expressions_use_utc(connect_pinned: Connect) -> None:
    """Days, parts, JSON and intervals depend on the session's zone."""
    with connect_pinned(connect_args=IN_NEW_YORK).connect() as connection:
        assert connection.scalar(FOLLOWS_THE_ZONE) is True
        driver(connection).execute("SET TIME ZONE 'America/New_York'")
        assert connection.scalar(FOLLOWS_THE_ZONE) is False


def test_two_sides_of_a_fold_load_as_different_values_and_sort_as_in_postgresql(engine: Engine) -> None:
    with engine.begin() as connection:
        rows = [{"name": "x", "created_at": at} for at in (FOLD.replace(fold=1), FOLD)]
        connection.execute(insert(Company), rows)
        connection.execute(text("SET LOCAL TIME ZONE 'America/New_York'"))
        loaded = list(connection.scalars(select(Company.created_at).order_by(Company.created_at)))

    assert loaded == sorted(loaded)
    assert loaded[1] - loaded[0] == timedelta(hours=1)
    assert len(set(loaded)) == 2


def test_day_added_across_a_clock_change_is_24_hours(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL TIME ZONE 'America/New_York'"))
        query = "SELECT at, at + interval '24 hours' FROM (SELECT timestamptz '2024-03-09 12:00Z' AS at) AS moments"
        at, later = connection.execute(text(query)).one()

    assert at + timedelta(days=1) == later


def test_zone_that_python_does_not_know_changes_nothing(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The loader of psycopg would return UTC and log a warning."""
    with engine.begin() as connection, caplog.at_level(logging.WARNING):
        connection.execute(text("SELECT set_config('TimeZone', '<+03>-03', true)"))
        at = connection.scalar(text("SELECT timestamptz '2024-01-01 00:00Z'"))

    assert at == datetime(2024, 1, 1, tzinfo=UTC)
    assert not caplog.records


def test_text_in_another_datestyle_is_refused_and_not_misread(engine: Engine) -> None:
    """Read as ISO, 01/02/0003 would be a day in the year 1."""
    query = "SELECT timestamptz '0003-02-01 00:00:00Z'"
    with engine.begin() as connection:
        raw = driver(connection)
        raw.execute("SET LOCAL datestyle = 'SQL, DMY'")
        with pytest.raises(NotImplementedError, match="SQL, DMY"):
            raw.execute(query).fetchone()

        assert raw.execute(query, binary=True).fetchone() == (datetime(3, 2, 1, tzinfo=UTC),)


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("value", ["infinity", "0044-03-15 12:00Z BC"])
def test_value_that_python_cannot_represent_is_an_error_and_not_another_time(
    engine: Engine, value: str, form: Format
) -> None:
    with engine.begin() as connection:
        cursor = driver(connection).execute("SELECT %s::timestamptz", [value], binary=bool(form))
        with pytest.raises(psycopg.DataError, match=r"too (large|small)"):
            cursor.fetchone()


def test_psycopgs_c_code_loads_values(engine: Engine) -> None:
    has_c = psycopg.pq.__impl__ != "python"
    with engine.connect() as connection:
        raw = driver(connection)
        oid = types["timestamptz"].oid
        used = [raw.adapters.get_loader(oid, form)(oid, None) for form in Format]  # type: ignore[misc]  # registered

    assert [type(each).__module__.endswith("._psycopg") for each in used] == [has_c] * 2


def test_naive_datetime_is_refused_in_a_copy_of_timestamps(engine: Engine) -> None:
    """In binary COPY the bytes of a timestamp are those of a timestamptz."""
    statement = "COPY companies (created_at) FROM STDIN (FORMAT BINARY)"
    with engine.connect() as connection, driver(connection).cursor() as cursor:

        def copy_naive() -> None:
            with cursor.copy(statement) as rows:
                rows.set_types(["timestamp"])
                rows.write_row([REFUSED_DATETIMES["naive"]])

        with pytest.raises(psycopg.DataError, match="name the type timestamptz"):
            copy_naive()


def test_other_connections_of_the_process_stay_as_they_were(engine: Engine) -> None:
    engine.connect().close()
    with plain_connection(engine.url) as plain:
        plain.execute("SET TIME ZONE 'America/New_York'")
        ((at,),) = plain.execute("SELECT %s::timestamptz", [REFUSED_DATETIMES["naive"]]).fetchall()

    assert at.tzinfo == NEW_YORK


def test_literal_in_a_statement_is_converted_too(engine: Engine) -> None:
    def compiled(at: datetime) -> str:
        literal = select(bindparam("at", at, type_=UtcDateTime()))
        return str(literal.compile(engine, compile_kwargs={"literal_binds": True}))

    assert "'2024-11-03 06:30:00+00:00'" in compiled(FOLD.replace(fold=1))
    with pytest.raises(CompileError) as caught:
        compiled(REFUSED_DATETIMES["naive"])
    assert "without an offset" in str(caught.value.__cause__)


def test_arithmetic_with_an_interval_returns_utc(engine: Engine) -> None:
    at = datetime(2024, 3, 9, 12, tzinfo=UTC)
    with engine.begin() as connection:
        connection.execute(insert(Company).values(name="x", created_at=at))
        day_before = connection.scalar(select(Company.created_at - timedelta(days=1)))

    assert day_before is not None
    assert (day_before, day_before.tzinfo) == (at - timedelta(days=1), UTC)


def test_refused_value_leaves_no_row_of_a_bulk_insert(engine: Engine) -> None:
    rows = [{"name": "x"} | {"created_at": at} for at in (FOLD, REFUSED_DATETIMES["naive"])]
    with engine.begin() as connection:
        with pytest.raises(StatementError, match="without an offset"):
            connection.execute(insert(Company), rows)

        assert connection.scalars(select(Company.id)).all() == []
