"""Companies."""

from fastapi import APIRouter, Request, Response

from backend.dependencies import PageOf, RowId, SessionDep
from backend.routers.openapi import CREATED, problem_responses
from backend.schemas.companies import CompanyChange, CompanyCreate, CompanyRead
from backend.schemas.pages import Page
from backend.services import companies

router = APIRouter(prefix="/companies", tags=["companies"])


@router.post("", status_code=201, summary="Create a company", responses=CREATED)
def create_company(
    body: CompanyCreate, session: SessionDep, request: Request, response: Response
) -> CompanyRead:
    """The response is sent after the row is committed; its Location header is the path of the row."""
    company = companies.create_company(session, body.model_dump())
    response.headers["Location"] = f"{request.url.path}/{company.id}"
    return CompanyRead.model_validate(company)


@router.get("", summary="List companies")
def list_companies(page: PageOf, session: SessionDep) -> Page[CompanyRead]:
    return Page[CompanyRead].of(*companies.list_companies(session, limit=page.limit, after=page.cursor))


@router.get("/{company_id}", summary="Read a company", responses=problem_responses(404))
def read_company(company_id: RowId, session: SessionDep) -> CompanyRead:
    return CompanyRead.model_validate(companies.read_company(session, company_id))


@router.patch("/{company_id}", summary="Change a company", responses=problem_responses(404))
def change_company(company_id: RowId, body: CompanyChange, session: SessionDep) -> CompanyRead:
    """Omitted fields stay unchanged."""
    changes = body.model_dump(exclude_unset=True)
    return CompanyRead.model_validate(companies.change_company(session, company_id, changes))
