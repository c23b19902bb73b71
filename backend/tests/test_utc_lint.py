"""Columns that could hold a wrong time are found in the models, in the catalog, and by /health/ready."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import ARRAY, Column, DateTime, Engine, MetaData, Table, Text, Time, event, text
from sqlalchemy.dialects.postgresql import (
    DOMAIN,
    TIME,
    TIMESTAMP,
    TSMULTIRANGE,
    TSRANGE,
    TSTZMULTIRANGE,
    TSTZRANGE,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from backend import utc
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
        (DateTime, "make it timestamptz"),
        (TIMESTAMP(precision=3), "make it timestamptz"),
        (Decorated(), "make it timestamptz"),
        (ARRAY(DateTime()), "make it timestamptz"),
        (DOMAIN("moment", DateTime()), "make it timestamptz"),
        (TIME(timezone=True), "follows no clock"),
        (Time(timezone=True), "follows no clock"),
        (TSRANGE(), "make it tstzrange"),
        (TSMULTIRANGE(), "make it tstzmultirange"),
        (TIMESTAMP(timezone=True, precision=3), "leave the precision out"),
        (TIMESTAMP(timezone=True, precision=6), "leave the precision out"),
        (ARRAY(TIMESTAMP(timezone=True, precision=0)), "leave the precision out"),
        (DateTime(timezone=True), "use UtcDateTime"),
        (ARRAY(DateTime(timezone=True)), "use UtcDateTime"),
    ],
)
def test_metadata_with_a_column_that_could_be_wrong_is_found(type_: Any, advice: str) -> None:  # noqa: ANN401 - any type of SQLAlchemy's
    (finding,) = lint_table(type_)

    assert (finding.table, finding.column) == ("bad", "at")
    assert advice in finding.advice
    assert str(finding).startswith(f"bad.at is {finding.type}: ")


def lint_table(type_: Any) -> Any:  # noqa: ANN401 - likewise
    metadata = MetaData()
    Table("bad", metadata, Column("at", type_))
    return lint_metadata(metadata)


@pytest.mark.parametrize(
    "type_", [UtcDateTime(), ARRAY(UtcDateTime()), TSTZRANGE(), TSTZMULTIRANGE(), Time(), Text()]
)
def test_metadata_that_holds_instants_is_clean(type_: Any) -> None:  # noqa: ANN401 - likewise
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
    "timestamp": "make it timestamptz",
    "timestamp(6)": "make it timestamptz",
    "timestamp[]": "make it timestamptz",
    "naive": "make it timestamptz",
    "deep[]": "make it timestamptz",
    "pair": "make it timestamptz",
    "pair[]": "make it timestamptz",
    "span": "make it timestamptz",
    "spans": "make it timestamptz",
    "timetz": "follows no clock",
    "tsrange": "make it tstzrange",
    "tsmultirange": "make it tstzmultirange",
    "tsrange[]": "make it tstzrange",
    "timestamptz(3)": "leave the precision out",
    "timestamptz(6)": "leave the precision out",
    "timestamptz(0)[]": "leave the precision out",
    "short": "leave the precision out",
    "short[]": "leave the precision out",
}
FINE = [
    "timestamptz",
    "timestamptz[]",
    "tstzrange",
    "tstzmultirange",
    "fine",
    "fine_pair[]",
    "date",
    "time",
    "interval",
    "text",
]


def test_catalog_tells_every_column_that_could_be_wrong_and_no_other(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        for statement in TYPES.strip().splitlines():
            connection.execute(text(statement))
        connection.execute(
            text(f"CREATE TABLE bad ({', '.join(f'c{n} {type_}' for n, type_ in enumerate(BAD))})")
        )
        connection.execute(
            text(f"CREATE TABLE fine_table ({', '.join(f'c{n} {type_}' for n, type_ in enumerate(FINE))})")
        )
        found = {finding.column: finding for finding in lint_catalog(connection)}

    assert [column for column in found if found[column].table != "bad"] == []
    assert set(found) == {f"c{n}" for n in range(len(BAD))}
    for n, advice in enumerate(BAD.values()):
        assert advice in found[f"c{n}"].advice


def test_catalog_looks_where_it_is_told(empty_engine: Engine) -> None:
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


def test_catalog_leaves_out_what_belongs_to_an_extension(engine: Engine) -> None:
    with engine.begin() as connection:
        extension = connection.scalar(
            text("SELECT min(name) FROM pg_available_extension_versions WHERE trusted AND NOT installed")
        )
        connection.execute(text(f"CREATE EXTENSION {extension} CASCADE; CREATE TABLE its_own (at timestamp)"))
        assert [finding.table for finding in lint_catalog(connection)] == ["its_own"]
        connection.execute(text(f"ALTER EXTENSION {extension} ADD TABLE its_own"))

        assert lint_catalog(connection) == []


def test_catalog_of_the_project_is_clean(engine: Engine) -> None:
    with engine.connect() as connection:
        assert lint_catalog(connection) == []


@pytest.fixture
def api(engine: Engine) -> Iterator[TestClient]:
    with TestClient(make_app(engine)) as client:
        yield client


def test_health_says_that_utc_is_ok(api: TestClient) -> None:
    response = api.get("/health/ready")

    assert (response.status_code, response.json()["utc"]) == (200, "ok")


def test_health_refuses_a_column_that_was_changed_by_hand(api: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE job_queue ALTER run_at TYPE timestamptz(0)"))
    response = api.get("/health/ready")

    assert response.status_code == 503
    assert response.json()["detail"] == (
        "job_queue.run_at is timestamp(0) with time zone: "
        "PostgreSQL rounds to it, into the next second or year: leave the precision out."
    )


def test_health_leaves_tables_of_others_alone(api: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE somebody_elses (at timestamp)"))
        connection.execute(text("CREATE SCHEMA another CREATE TABLE users (at timestamp)"))

    assert api.get("/health/ready").status_code == 200


def test_health_refuses_a_session_that_is_moved(api: TestClient, engine: Engine) -> None:
    """As behind a pooler that hands another client's session on, after the check at checkout."""

    def move(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
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


def test_every_defence_that_the_wing_lists_names_tests_that_are_there() -> None:
    named = set(re.findall(r"\btest_\w+", str(utc.__doc__)))
    sources = (path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    defined = {name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}

    assert len(named) > 24
    assert named <= defined
