"""The lint finds columns that could hold a wrong time, in the models, in the catalog, and in /health/ready."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import ARRAY, Column, DateTime, Engine, MetaData, Table, Text, Time, event, text
from sqlalchemy.dialects.postgresql import (
    DOMAIN,
    TIMESTAMP,
    TSMULTIRANGE,
    TSRANGE,
    TSTZMULTIRANGE,
    TSTZRANGE,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from backend.models.models import Base
from backend.tests.application import make_app
from backend.utc import UtcDateTime, lint_catalog, lint_metadata


class Decorated(TypeDecorator[datetime]):
    impl = DateTime
    cache_ok = True


@pytest.mark.parametrize(
    ("type_", "advice"),
    [
        (DateTime(), "make it timestamptz"),
        (TIMESTAMP(precision=3), "make it timestamptz"),
        (Decorated(), "make it timestamptz"),
        (ARRAY(DateTime()), "make it timestamptz"),
        (DOMAIN("moment", DateTime()), "make it timestamptz"),
        (Time(timezone=True), "is not a time anywhere"),
        (TSRANGE(), "make it tstzrange"),
        (TSMULTIRANGE(), "make it tstzmultirange"),
        (TIMESTAMP(timezone=True, precision=3), "leave the precision out"),
        (ARRAY(TIMESTAMP(timezone=True, precision=0)), "leave the precision out"),
        (DateTime(timezone=True), "use UtcDateTime"),
    ],
)
def test_column_of_the_models_that_could_be_wrong_is_found(type_: Any, advice: str) -> None:
    (finding,) = lint_table(type_)

    assert (finding.table, finding.column) == ("bad", "at")
    assert advice in finding.advice
    assert str(finding).startswith(f"bad.at is {finding.type}: ")


def lint_table(type_: Any) -> Any:
    metadata = MetaData()
    Table("bad", metadata, Column("at", type_))
    return lint_metadata(metadata)


@pytest.mark.parametrize(
    "type_", [UtcDateTime(), ARRAY(UtcDateTime()), TSTZRANGE(), TSTZMULTIRANGE(), Time(), Text()]
)
def test_correct_column_of_the_models_is_not_reported(type_: Any) -> None:
    assert lint_table(type_) == []


def test_models_are_clean() -> None:
    assert lint_metadata(Base.metadata) == []


def test_bare_annotation_of_an_unmapped_base_is_found() -> None:
    class Plain(DeclarativeBase):
        pass

    class Event(Plain):
        __tablename__ = "events"
        id: Mapped[int] = mapped_column(primary_key=True)
        at: Mapped[datetime]

    (finding,) = lint_metadata(Plain.metadata)
    assert (finding.table, finding.column) == ("events", "at")


TYPES = """
CREATE DOMAIN short AS timestamptz(3);
CREATE DOMAIN naive AS timestamp;
CREATE DOMAIN deep AS naive;
CREATE TYPE pair AS (a int, b timestamp[]);
CREATE TYPE span AS RANGE (subtype = timestamp, multirange_type_name = spans);
CREATE DOMAIN fine AS timestamptz;
CREATE TYPE fine_pair AS (a timestamptz, b date);
"""
BAD = {
    "make it timestamptz": "timestamp timestamp(6) timestamp[] naive deep[] pair pair[] span spans",
    "is not a time anywhere": "timetz",
    "make it tstzrange": "tsrange tsrange[]",
    "make it tstzmultirange": "tsmultirange",
    "leave the precision out": "timestamptz(3) timestamptz(6) timestamptz(0)[] short short[]",
}
FINE = "timestamptz timestamptz[] tstzrange tstzmultirange fine fine_pair[] date time interval text"


def test_catalog_reports_every_column_that_could_be_wrong_and_no_other(empty_engine: Engine) -> None:
    bad = [(type_, advice) for advice, types in BAD.items() for type_ in types.split()]
    columns = ", ".join(f"c{n} {type_}" for n, (type_, _) in enumerate(bad))
    fine = ", ".join(f"c{n} {type_}" for n, type_ in enumerate(FINE.split()))
    with empty_engine.begin() as connection:
        connection.exec_driver_sql(f"{TYPES} CREATE TABLE bad ({columns}); CREATE TABLE fine_table ({fine})")
        found = {(finding.table, finding.column): finding.advice for finding in lint_catalog(connection)}

    assert found.keys() == {("bad", f"c{n}") for n in range(len(bad))}
    for n, (_, advice) in enumerate(bad):
        assert advice in found["bad", f"c{n}"]


def test_catalog_is_limited_to_a_schema_or_to_tables(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        connection.exec_driver_sql("""
            CREATE TABLE here (at timestamp);
            CREATE TABLE gone (at timestamp);
            ALTER TABLE gone DROP COLUMN at;
            CREATE VIEW shown AS SELECT at FROM here;
            CREATE SCHEMA "else where";
            CREATE TABLE "else where"."its table" (at timestamp);
        """)
        whole = {finding.table for finding in lint_catalog(connection)}
        schema = {finding.table for finding in lint_catalog(connection, "else where")}
        tables = {finding.table for finding in lint_catalog(connection, tables=["here"])}

    assert whole == {"here", "shown", '"else where"."its table"'}
    assert schema == {'"else where"."its table"'}
    assert tables == {"here"}


def test_tables_of_an_extension_are_left_out(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION citext; CREATE TABLE its_own (at timestamp)"))
        assert [finding.table for finding in lint_catalog(connection)] == ["its_own"]
        connection.execute(text("ALTER EXTENSION citext ADD TABLE its_own"))

        assert lint_catalog(connection) == []


def test_catalog_of_the_project_is_clean(engine: Engine) -> None:
    with engine.connect() as connection:
        assert lint_catalog(connection) == []


@pytest.fixture
def api(engine: Engine) -> Iterator[TestClient]:
    with TestClient(make_app(engine)) as client:
        yield client


def test_health_is_503_after_a_column_was_changed_by_hand(api: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE job_queue ALTER run_at TYPE timestamptz(0)"))
    response = api.get("/health/ready")

    assert response.status_code == 503
    assert response.json()["detail"] == (
        "job_queue.run_at is timestamp(0) with time zone: "
        "PostgreSQL rounds to it, even into the next year: leave the precision out."
    )


def test_health_ignores_tables_of_others(api: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE somebody_elses (at timestamp)"))
        connection.execute(text("CREATE SCHEMA another CREATE TABLE users (at timestamp)"))

    response = api.get("/health/ready")
    assert (response.status_code, response.json()["utc"]) == (200, "ok")


def test_health_is_503_if_the_session_was_changed_to_another_zone(api: TestClient, engine: Engine) -> None:
    """This happens behind a pooler that passes on another client's session after the check at checkout."""

    def move(connection: Any) -> None:
        connection.exec_driver_sql("SET LOCAL timezone = 'Asia/Kathmandu'; SET LOCAL datestyle = 'SQL, DMY'")

    event.listen(engine, "begin", move)
    try:
        response = api.get("/health/ready")
    finally:
        event.remove(engine, "begin", move)

    assert response.status_code == 503
    assert response.json()["detail"] == (
        "The session's TimeZone is Asia/Kathmandu. The session's DateStyle is SQL, DMY."
    )
