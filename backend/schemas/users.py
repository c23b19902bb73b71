"""Users in requests and responses. Neither has the password hash."""

from typing import Literal

from backend.schemas.fields import Email, RequestBody, ResponseBody, optional
from backend.utc import UtcField

# Schemas do not import the models; a test checks that the values are the same.
Role = Literal["owner", "admin", "member"]


class UserCreate(RequestBody):
    email: Email
    role: Role = "member"
    is_active: bool = True


class UserChange(RequestBody):
    email: Email = optional()
    role: Role = optional()
    is_active: bool = optional()


class UserRead(ResponseBody):
    id: int
    company_id: int
    email: str
    role: Role
    is_active: bool
    created_at: UtcField
    updated_at: UtcField
