"""The users of a company."""

from fastapi import APIRouter, Request, Response

from backend.dependencies import SessionDep
from backend.routers.documentation import CREATED, problem_responses
from backend.routers.parameters import CompanyId, PageOf, UserId, set_location
from backend.schemas.pages import Page
from backend.schemas.users import UserChange, UserCreate, UserRead
from backend.services import users

router = APIRouter(prefix="/companies/{company_id}/users", tags=["users"])


@router.post("", status_code=201, summary="Create a user", responses=CREATED | problem_responses(404, 409))
def create_user(
    company_id: CompanyId, body: UserCreate, session: SessionDep, request: Request, response: Response
) -> UserRead:
    """No two users have the same email, regardless of company and case."""
    user = users.create_user(session, company_id, email=body.email, role=body.role, is_active=body.is_active)
    set_location(request, response, "read_user", company_id=company_id, user_id=user.id)
    return UserRead.model_validate(user)


@router.get("", summary="List a company's users", responses=problem_responses(404))
def list_users(company_id: CompanyId, page: PageOf, session: SessionDep) -> Page[UserRead]:
    found = users.list_users(session, company_id, limit=page.limit, after=page.cursor)
    return Page[UserRead].of(found.items, found.last_key)


@router.get("/{user_id}", summary="Read a user", responses=problem_responses(404))
def read_user(company_id: CompanyId, user_id: UserId, session: SessionDep) -> UserRead:
    return UserRead.model_validate(users.read_user(session, company_id, user_id))


@router.patch("/{user_id}", summary="Change a user", responses=problem_responses(404, 409))
def change_user(company_id: CompanyId, user_id: UserId, body: UserChange, session: SessionDep) -> UserRead:
    """Fields that are left out stay unchanged."""
    changes = body.model_dump(exclude_unset=True)
    return UserRead.model_validate(users.change_user(session, company_id, user_id, changes))
