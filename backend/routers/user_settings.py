"""The settings of a company's users."""

from fastapi import APIRouter, Request, Response

from backend.dependencies import PageOf, RowId, SessionDep
from backend.routers.openapi import CREATED, problem_responses
from backend.schemas.pages import Page
from backend.schemas.user_settings import UserSettingsChange, UserSettingsCreate, UserSettingsRead
from backend.services import user_settings

router = APIRouter(prefix="/companies/{company_id}", tags=["user settings"])

# Not `user_id`: tools that follow links from a new user would expect that its settings exist.
_ONE = "/users/{owner_id}/settings"


@router.post(
    _ONE, status_code=201, summary="Create a user's settings", responses=CREATED | problem_responses(404, 409)
)
def create_settings(
    *,
    company_id: RowId,
    owner_id: RowId,
    body: UserSettingsCreate,
    session: SessionDep,
    request: Request,
    response: Response,
) -> UserSettingsRead:
    """A user has at most one set of settings."""
    settings = user_settings.create_settings(session, company_id, owner_id, body.model_dump())
    response.headers["Location"] = request.url.path
    return UserSettingsRead.model_validate(settings)


@router.get(_ONE, summary="Read a user's settings", responses=problem_responses(404))
def read_settings(company_id: RowId, owner_id: RowId, session: SessionDep) -> UserSettingsRead:
    return UserSettingsRead.model_validate(user_settings.read_settings(session, company_id, owner_id))


@router.patch(_ONE, summary="Change a user's settings", responses=problem_responses(404, 409))
def change_settings(
    company_id: RowId, owner_id: RowId, body: UserSettingsChange, session: SessionDep
) -> UserSettingsRead:
    """Omitted fields stay unchanged; preferences are replaced completely.

    Send the `version` that you read. If somebody else has changed the settings since, the response is a 409 and
    nothing changes.
    """
    changes = body.model_dump(exclude_unset=True, exclude={"version"})
    settings = user_settings.change_settings(session, company_id, owner_id, body.version, changes)
    return UserSettingsRead.model_validate(settings)


@router.get(
    "/user-settings", summary="List the settings of a company's users", responses=problem_responses(404)
)
def list_settings(company_id: RowId, page: PageOf, session: SessionDep) -> Page[UserSettingsRead]:
    """Ordered by the users' ids; users without settings are not listed."""
    found = user_settings.list_settings(session, company_id, limit=page.limit, after=page.cursor)
    return Page[UserSettingsRead].of(*found)
