"""What routes share: the parameters of paths and lists, and the header of a 201."""

from typing import Annotated

from fastapi import Path, Query, Request, Response

from backend.schemas.fields import LARGEST_ID
from backend.schemas.pages import PageQuery

CompanyId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
UserId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
PageOf = Annotated[PageQuery, Query()]


def set_location(request: Request, response: Response, route: str, **parameters: int) -> None:
    """Say where the row that was made is read: a path and no host, which a caller could have made up."""
    path = request.app.url_path_for(route, **parameters)
    response.headers["Location"] = request.scope.get("root_path", "") + path
