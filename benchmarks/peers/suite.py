"""The tests that every way runs, on the fixture `engine` or without it, and their schema."""

import os

import pytest
from sqlalchemy import BigInteger, Column, Engine, Identity, MetaData, Table, Text, func, insert, select

metadata = MetaData()
TABLES = [
    Table(
        f"table_{number}",
        metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("name", Text, nullable=False, index=True),
    )
    for number in range(int(os.environ["BENCH_TABLES"]))
]
WRITTEN = TABLES[:6]


@pytest.mark.parametrize("number", range(int(os.environ["BENCH_TESTS"])))
def test_insert_and_commit(engine: Engine, number: int) -> None:
    with engine.begin() as connection:
        for table in WRITTEN:
            connection.execute(insert(table).values(name=f"row of test {number}"))
    with engine.connect() as connection:
        for table in WRITTEN:
            assert connection.scalar(select(func.count()).select_from(table)) == 1  # noqa: S101  a test


@pytest.mark.parametrize("number", range(int(os.environ["BENCH_TESTS"])))
def test_without_a_database(number: int) -> None:
    del number
