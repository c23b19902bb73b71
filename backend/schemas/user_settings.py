"""A user's settings, as they are sent and shown."""

from typing import Any

from pydantic import Field

from backend.schemas.fields import Id, Preferences, RequestBody, ResponseBody, Timezone, optional
from backend.utc import UtcField


class UserSettingsCreate(RequestBody):
    timezone: Timezone = "UTC"
    email_notifications: bool = True
    preferences: Preferences = Field(default_factory=dict)


class UserSettingsChange(RequestBody):
    """What is left out stays as it is; preferences are replaced as a whole."""

    version: Id = Field(description="The version that was read; where it is another by now, nothing changes.")
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
