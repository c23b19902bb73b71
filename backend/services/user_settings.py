"""The settings of users. A row has no company column, so every query joins the user."""

from collections.abc import Mapping

from sqlalchemy import Select, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from backend.errors import NotFoundError, StaleVersionError
from backend.models.models import User, UserSettings
from backend.services.companies import read_company
from backend.services.pages import PageRows, read_page
from backend.services.users import read_user


def create_settings(
    session: Session, company_id: int, user_id: int, values: Mapping[str, object]
) -> UserSettings:
    """Raise NotFoundError if the company has no such user, IntegrityError if the user has settings already."""
    read_user(session, company_id, user_id)
    settings = UserSettings(user_id=user_id, **values)
    session.add(settings)
    session.flush()
    return settings


def read_settings(session: Session, company_id: int, user_id: int) -> UserSettings:
    """Raise NotFoundError if the company has no such user, or the user has no settings."""
    settings = session.scalar(_of_company(company_id).where(UserSettings.user_id == user_id))
    if settings is None:
        read_user(session, company_id, user_id)
        raise NotFoundError("settings for user", user_id)
    return settings


def list_settings(
    session: Session, company_id: int, *, limit: int, after: int | None
) -> PageRows[UserSettings]:
    """Raise NotFoundError if the company does not exist."""
    read_company(session, company_id)
    return read_page(session, _of_company(company_id), UserSettings.user_id, limit=limit, after=after)


def change_settings(
    session: Session, company_id: int, user_id: int, version: int, changes: Mapping[str, object]
) -> UserSettings:
    """Set the fields in `changes` if the row is at `version`, and raise StaleVersionError otherwise.

    It also raises it if somebody else's change commits while this one waits for the row lock. The version increases
    only if a value really changes.
    """
    settings = read_settings(session, company_id, user_id)
    if settings.version != version:
        raise StaleVersionError
    for name, value in changes.items():
        setattr(settings, name, value)
    try:
        session.flush()
    except StaleDataError as error:
        raise StaleVersionError from error
    return settings


def _of_company(company_id: int) -> Select[UserSettings]:
    return (
        select(UserSettings).join(User, User.id == UserSettings.user_id).where(User.company_id == company_id)
    )
