"""A user's settings in requests and responses."""

from typing import Any

from pydantic import Field

from backend.schemas.fields import Id, Preferences, RequestBody, ResponseBody, Timezone, optional
from backend.utc import UtcField


class UserSettingsCreate(RequestBody):
    timezone: Timezone = "UTC"
    email_notifications: bool = True
    preferences: Preferences = Field(default_factory=dict)


class UserSettingsChange(RequestBody):
    version: Id = Field(
        description="The version that you read; if it is not the current one, nothing changes."
    )
    timezone: Timezone = optional()
    email_notifications: bool = optional()
    preferences: Preferences = optional()


class UserSettingsRead(ResponseBody):
    user_id: int
    timezone: str
    email_notifications: bool
    preferences: dict[str, Any]
    version: int
    created_at: UtcField
    updated_at: UtcField
