"""Companies, the tenants."""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.errors import NotFoundError
from backend.models.models import Company
from backend.services.pages import PageRows, read_page


def create_company(session: Session, values: Mapping[str, object]) -> Company:
    company = Company(**values)
    session.add(company)
    session.flush()
    return company


def read_company(session: Session, company_id: int) -> Company:
    """Raise NotFoundError."""
    company = session.get(Company, company_id)
    if company is None:
        raise NotFoundError("company", company_id)
    return company


def list_companies(session: Session, *, limit: int, after: int | None) -> PageRows[Company]:
    return read_page(session, select(Company), Company.id, limit=limit, after=after)


def change_company(session: Session, company_id: int, changes: Mapping[str, object]) -> Company:
    """Set the fields in `changes`. Raise NotFoundError."""
    company = read_company(session, company_id)
    for name, value in changes.items():
        setattr(company, name, value)
    session.flush()
    return company
