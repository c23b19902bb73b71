"""The effects of `guard_models` on attributes and tables."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Column, Engine, MetaData, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, synonym

from backend.database import SessionLocal
from backend.models.models import Base, JobQueue, JobStatus
from backend.tests import factories
from backend.utc import UtcDateTime, guard_models
from devtools.utc_check.cases import REFUSED_DATETIMES, REFUSED_OTHERS

FOLD = datetime(2024, 11, 3, 1, 30, tzinfo=ZoneInfo("America/New_York"))
FOLD_1_IN_UTC = "2024-11-03T06:30:00+00:00"


ATTRIBUTES = [
    (mapper.class_, column)
    for mapper in Base.registry.mappers
    for column in mapper.columns
    if column.name.endswith("_at")
]


@pytest.mark.parametrize(("model", "column"), ATTRIBUTES, ids=str)
def test_attribute_is_in_utc_as_soon_as_it_is_set(model: type[Any], column: Column[Any]) -> None:
    assert type(column.type) is UtcDateTime
    assert getattr(model(**{column.name: FOLD.replace(fold=1)}), column.name).isoformat() == FOLD_1_IN_UTC
    for value in REFUSED_DATETIMES.values():
        with pytest.raises(ValueError, match=f"^{column}: "):
            model(**{column.name: value})
    for other in REFUSED_OTHERS.values():
        with pytest.raises(TypeError, match=f"^{column}: expected a datetime"):
            model(**{column.name: other})


def test_attribute_accepts_expressions_and_none(session: Session) -> None:
    job = factories.make_job(session, run_at=func.now(), started_at=None)
    job.finished_at = JobQueue.run_at
    job.lease_expires_at = select(func.now()).scalar_subquery()
    job.status = JobStatus.SUCCEEDED
    session.flush()

    assert job.started_at is None
    assert job.finished_at == job.lease_expires_at == job.run_at == session.scalar(select(func.now()))


def test_value_before_the_flush_is_the_value_after_the_refresh(session: Session) -> None:
    job = factories.make_job(session)
    job.run_at = FOLD.replace(fold=1)
    before = job.run_at
    session.flush()
    session.refresh(job)

    assert (job.run_at, job.run_at.tzinfo) == (before, before.tzinfo)


def test_other_side_of_a_fold_is_a_change_and_is_sent(session: Session) -> None:
    job = factories.make_job(session, run_at=FOLD)
    job.run_at = FOLD.replace(fold=1)
    assert session.is_modified(job)
    session.flush()

    stored = session.scalar(text("SELECT (extract(epoch FROM run_at) * 1000000)::int8 FROM job_queue"))
    assert stored == 1_730_615_400_000_000


def test_same_instant_in_another_zone_is_not_a_change(session: Session) -> None:
    job = factories.make_job(session, run_at=FOLD)
    session.commit()
    assert job.run_at is not None  # this loads the attribute, so that there is a value to compare with
    job.run_at = FOLD.astimezone(ZoneInfo("Asia/Kathmandu"))

    assert not session.is_modified(job)


class Other(DeclarativeBase):
    metadata = MetaData(naming_convention={"ck": "ck_%(table_name)s_%(constraint_name)s"})
    type_annotation_map = {datetime: UtcDateTime()}  # noqa: RUF012 - SQLAlchemy's declaration


class Visit(Other):
    __tablename__ = "visits"

    id: Mapped[int] = mapped_column(primary_key=True)
    begin: Mapped[datetime | None] = mapped_column("begins")
    started = synonym("begin")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LongVisit(Visit):
    """It is stored in its parent's table."""


guard_models(Other)


def test_any_base_is_guarded_with_its_subclasses_and_synonyms(empty_engine: Engine) -> None:
    Other.metadata.create_all(empty_engine)
    for model in (Visit, LongVisit):
        with pytest.raises(ValueError, match=r"^visits\.begins: "):
            model(begin=REFUSED_DATETIMES["naive"])
    with SessionLocal(bind=empty_engine) as session:
        visit = LongVisit(started=FOLD)
        session.add(visit)
        session.commit()
        assert visit.begin == FOLD.astimezone(UTC)
        before = visit.updated_at
        session.execute(text("UPDATE visits SET begins = begins + interval '1 day'"))
        session.refresh(visit)
        assert visit.updated_at > before
        with pytest.raises(IntegrityError, match="ck_visits_begins_range"):
            session.execute(text("UPDATE visits SET begins = 'infinity'"))


def test_creating_the_schema_twice_changes_nothing(empty_engine: Engine) -> None:
    for _ in range(2):
        Other.metadata.create_all(empty_engine)
        Base.metadata.create_all(empty_engine)
    with SessionLocal(bind=empty_engine) as session:
        factories.make_company(session).created_at -= timedelta(days=1)
        with pytest.raises(IntegrityError, match=r"created_at of table .* cannot be changed"):
            session.flush()
