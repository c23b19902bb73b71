"""What the models hold: values normalised when set, and schemas made from them guarded like the migrated one."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import CheckConstraint, Engine, MetaData, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, synonym

from backend.database import SessionLocal
from backend.models.models import Base, Company, JobQueue, JobStatus
from backend.tests import factories
from backend.tests.test_utc_values import Moment, NoOffset
from backend.utc import UtcDateTime, guard_models

NEW_YORK = ZoneInfo("America/New_York")
FOLD = datetime(2024, 11, 3, 1, 30, tzinfo=NEW_YORK)

# Mappers come in no order, and workers must agree on one.
INSTANTS = [
    (mapper.class_, column.name)
    for mapper in sorted(Base.registry.mappers, key=lambda mapper: mapper.class_.__name__)
    for column in mapper.local_table.c
    if column.name.endswith("_at")
]


def test_every_timestamp_of_the_models_is_found() -> None:
    assert len(INSTANTS) == 19
    assert all(type(model.__table__.c[name].type) is UtcDateTime for model, name in INSTANTS)


@pytest.mark.parametrize(("model", "name"), INSTANTS)
def test_attribute_holds_utc_as_soon_as_it_is_set(model: type[Any], name: str) -> None:
    row = model(**{name: FOLD})
    assert getattr(row, name).tzinfo is UTC
    setattr(row, name, Moment(2024, 11, 3, 1, 30, fold=1, tzinfo=NEW_YORK))
    value = getattr(row, name)

    assert type(value) is datetime
    assert value == datetime(2024, 11, 3, 6, 30, tzinfo=UTC)


@pytest.mark.parametrize(("model", "name"), INSTANTS)
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (datetime(2024, 1, 1), ValueError),  # noqa: DTZ001 - the mistake under test
        (datetime(2024, 1, 1, tzinfo=NoOffset()), ValueError),
        (date(2024, 1, 1), TypeError),
        ("2024-01-01T00:00:00Z", TypeError),
        (0, TypeError),
    ],
)
def test_attribute_refuses_what_is_no_instant_by_the_columns_name(
    model: type[Any], name: str, value: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=rf"^{model.__tablename__}\.{name}: "):
        model(**{name: value})


def test_attribute_takes_expressions_and_nothing(session: Session) -> None:
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


def test_same_instant_in_another_zone_is_no_change(session: Session) -> None:
    job = factories.make_job(session, run_at=FOLD)
    session.commit()
    assert job.run_at is not None  # loaded again, so that there is something to compare with
    job.run_at = FOLD.astimezone(ZoneInfo("Asia/Kathmandu"))

    assert not session.is_modified(job)


def test_every_timestamp_has_its_range_check() -> None:
    checks = {
        constraint.name
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }

    assert {f"ck_{model.__tablename__}_{name}_range" for model, name in INSTANTS} <= checks


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
    """In the table of its parent."""


guard_models(Other)


def test_another_base_is_guarded_alike(empty_engine: Engine) -> None:
    """The wing knows nothing of the project's tables: names are the column's, subclasses and synonyms are held too."""
    Other.metadata.create_all(empty_engine)
    for model in (Visit, LongVisit):
        with pytest.raises(ValueError, match=r"^visits\.begins: "):
            model(begin=datetime(2024, 1, 1))  # noqa: DTZ001 - the mistake under test
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


def test_schema_made_twice_is_left_as_it_is(empty_engine: Engine) -> None:
    for _ in range(2):
        Other.metadata.create_all(empty_engine)
        Base.metadata.create_all(empty_engine)
    with SessionLocal(bind=empty_engine) as session:
        factories.make_company(session).created_at -= timedelta(days=1)
        with pytest.raises(IntegrityError, match=r"created_at of table .* cannot be changed"):
            session.flush()


NAIVE = {"name": "x", "created_at": datetime(2024, 1, 1)}  # noqa: DTZ001 - the mistake under test


@pytest.mark.parametrize(
    "write",
    [
        lambda session: session.bulk_insert_mappings(Company.__mapper__, [NAIVE]),
        lambda session: session.execute(insert(Company), [NAIVE, NAIVE]),
        lambda session: session.execute(insert(Base.metadata.tables["companies"]), [NAIVE, NAIVE]),
        lambda session: session.execute(update(Company).values(NAIVE)),
    ],
    ids=["bulk", "ORM insert", "Core insert", "update"],
)
def test_write_that_sets_no_attribute_refuses_what_is_no_instant(
    session: Session, write: Callable[[Session], object]
) -> None:
    with pytest.raises(StatementError, match="without an offset"):
        write(session)
