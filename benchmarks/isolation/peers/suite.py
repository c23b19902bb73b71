"""The tests that every way of isolation runs, each on the engine of its fixture; which of them, `-k` says.

The first few warm up, and are also what proves that a way isolates; the last pays for what ends with the run.
"""

import os
import time

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from backend.models.models import Company
from backend.tests.factories import (
    make_company,
    make_job,
    make_procore_connection,
    make_usage_log,
    make_user,
    make_user_settings,
)
from benchmarks.isolation.recorder import WARM_UP

each = pytest.mark.parametrize("number", range(WARM_UP + int(os.environ["BENCH_TESTS"]) + 1))
PACE_SECONDS = float(os.environ["BENCH_PACE_SECONDS"])


def insert(engine: Engine) -> None:
    """Write a row in each of the six tables, and commit."""
    with Session(engine, autoflush=False) as session:
        company = make_company(session).id
        user = make_user(session, company_id=company).id
        make_procore_connection(session, company_id=company)
        make_job(session, company_id=company)
        make_usage_log(session, company_id=company)
        make_user_settings(session, user_id=user)
        session.commit()


def check_nothing_is_there(engine: Engine, number: int) -> None:
    if number < WARM_UP:
        with Session(engine) as session:
            found = session.scalar(select(func.count()).select_from(Company))
        assert found == 0, "what another test committed is there"  # noqa: S101  a test


@each
def test_nothing(number: int) -> None:
    pass


@each
def test_plain(plain: Engine, number: int) -> None:  # noqa: ARG001  asked for by `each`
    insert(plain)


@each
def test_isolated(postgres_engine: Engine, number: int) -> None:
    check_nothing_is_there(postgres_engine, number)
    insert(postgres_engine)


@each
def test_paced(postgres_engine: Engine, number: int) -> None:
    """Stand for a test that does something else as well, meanwhile a database can be made ahead."""
    check_nothing_is_there(postgres_engine, number)
    insert(postgres_engine)
    # What else a test does, in which no database is needed.
    time.sleep(PACE_SECONDS)


@each
def test_back_to_back(postgres_engine: Engine, number: int) -> None:
    """Want the next database at once."""
    check_nothing_is_there(postgres_engine, number)
