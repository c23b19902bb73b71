"""The dependencies of routes: parameters, the session, a reserved connection, and the check of the token."""

import secrets
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import CapacityLimiter, fail_after
from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from backend.database import get_db
from backend.schemas.fields import LARGEST_NUMBER
from backend.schemas.pages import PageQuery

LONGEST_WAIT = 10.0  # seconds

# With "function", the transaction is committed before the response is sent, so that a 201 is a promise.
SessionDep = Annotated[Session, Depends(get_db, scope="function")]

RowId = Annotated[int, Path(ge=1, le=LARGEST_NUMBER)]
PageOf = Annotated[PageQuery, Query()]

bearer = HTTPBearer(auto_error=False, description="The value of the setting API_TOKEN.")


async def require_token(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> None:
    """Refuse a request without the application's token; if the application has no token, accept all requests.

    This is the only place that decides who may call the API: replace it to add sign-in.
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


async def wait_for_connection(request: Request) -> AsyncIterator[None]:
    """Wait until the pool has a connection for this request, and reserve it until the transaction has ended.

    The request waits in the event loop, which is cheap. A route that waited for the pool itself would occupy a thread;
    with enough of them, no thread is left for the requests that hold the connections, and the application deadlocks:
    https://github.com/fastapi/fastapi/issues/3205
    """
    connections: CapacityLimiter = request.app.state.connections
    try:
        with fail_after(LONGEST_WAIT):
            await connections.acquire()
    except TimeoutError:
        raise HTTPException(
            503,
            f"The server is busy: no database connection became free within {LONGEST_WAIT:g} s.",
            headers={"Retry-After": "5"},
        ) from None
    try:
        yield
    finally:
        connections.release()
