"""The users of a company."""

from fastapi import APIRouter, Request, Response

from backend.dependencies import PageOf, RowId, SessionDep
from backend.routers.openapi import CREATED, problem_responses
from backend.schemas.pages import Page
from backend.schemas.users import UserChange, UserCreate, UserRead
from backend.services import users

router = APIRouter(prefix="/companies/{company_id}/users", tags=["users"])


@router.post("", status_code=201, summary="Create a user", responses=CREATED | problem_responses(404, 409))
def create_user(
    company_id: RowId, body: UserCreate, session: SessionDep, request: Request, response: Response
) -> UserRead:
    """Emails are unique across all companies, regardless of case."""
    user = users.create_user(session, company_id, body.model_dump())
    response.headers["Location"] = f"{request.url.path}/{user.id}"
    return UserRead.model_validate(user)


@router.get("", summary="List a company's users", responses=problem_responses(404))
def list_users(company_id: RowId, page: PageOf, session: SessionDep) -> Page[UserRead]:
    found = users.list_users(session, company_id, limit=page.limit, after=page.cursor)
    return Page[UserRead].of(*found)


@router.get("/{user_id}", summary="Read a user", responses=problem_responses(404))
def read_user(company_id: RowId, user_id: RowId, session: SessionDep) -> UserRead:
    return UserRead.model_validate(users.read_user(session, company_id, user_id))


@router.patch("/{user_id}", summary="Change a user", responses=problem_responses(404, 409))
def change_user(company_id: RowId, user_id: RowId, body: UserChange, session: SessionDep) -> UserRead:
    """Omitted fields stay unchanged."""
    changes = body.model_dump(exclude_unset=True)
    return UserRead.model_validate(users.change_user(session, company_id, user_id, changes))
