"""Users, as they are sent and shown. A password's hash is neither."""

from typing import Literal

from backend.schemas.fields import Email, RequestBody, ResponseBody, optional
from backend.utc import UtcField

# Schemas know nothing of the models; a test holds the two to the same values.
Role = Literal["owner", "admin", "member"]


class UserCreate(RequestBody):
    email: Email
    role: Role = "member"
    is_active: bool = True


class UserChange(RequestBody):
    """What is left out stays as it is; an empty object changes nothing."""

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
