"""Companies in requests and responses."""

from pydantic import Field

from backend.schemas.fields import Line, RequestBody, ResponseBody, optional
from backend.utc import UtcField


class CompanyCreate(RequestBody):
    name: Line
    is_active: bool = True


class CompanyChange(RequestBody):
    name: Line = optional()
    is_active: bool = optional()


class CompanyRead(ResponseBody):
    id: int
    name: str
    is_active: bool
    created_at: UtcField = Field(description="When the row was created.")
    updated_at: UtcField = Field(description="When the row last changed.")
