"""The users of a company. Every query is restricted to the company: another company's user is not found."""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.errors import NotFoundError
from backend.models.models import User
from backend.services.companies import read_company
from backend.services.pages import PageRows, read_page


def create_user(session: Session, company_id: int, values: Mapping[str, object]) -> User:
    """Raise NotFoundError if the company does not exist, IntegrityError if the email is taken.

    It does not query for the email first, because only the unique index can decide whether an email is free.
    """
    read_company(session, company_id)
    user = User(company_id=company_id, **values)
    session.add(user)
    session.flush()
    return user


def read_user(session: Session, company_id: int, user_id: int) -> User:
    """Raise NotFoundError if the company has no such user."""
    user = session.scalar(select(User).where(User.company_id == company_id, User.id == user_id))
    if user is None:
        raise NotFoundError("user", user_id)
    return user


def list_users(session: Session, company_id: int, *, limit: int, after: int | None) -> PageRows[User]:
    """Raise NotFoundError if the company does not exist; a company without users has an empty list."""
    read_company(session, company_id)
    statement = select(User).where(User.company_id == company_id)
    return read_page(session, statement, User.id, limit=limit, after=after)


def change_user(session: Session, company_id: int, user_id: int, changes: Mapping[str, object]) -> User:
    """Set the fields in `changes`. Raise NotFoundError if the company has no such user."""
    user = read_user(session, company_id, user_id)
    for name, value in changes.items():
        setattr(user, name, value)
    session.flush()
    return user
