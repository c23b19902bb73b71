"""What a route asks for: the session, and that the caller is known."""

import secrets
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from backend.database import get_db

# "function" has the transaction committed before the response is sent, so that a 201 is a promise.
Database = Annotated[Session, Depends(get_db, scope="function")]

bearer = HTTPBearer(auto_error=False, description="The value of the setting API_TOKEN.")


def require_token(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> None:
    """Let a request through that carries the application's token, or any where the application has none.

    The one place that knows who may call: sign-in takes its place here.
    """
    expected: str | None = request.app.state.api_token
    if expected is None:
        return
    given = credentials.credentials if credentials else ""
    if not secrets.compare_digest(given.encode(), expected.encode()):
        raise HTTPException(
            401,
            "Send the header `Authorization: Bearer TOKEN` with the API's token.",
            headers={"WWW-Authenticate": "Bearer"},
        )
