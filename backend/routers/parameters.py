"""What routes share: the parameters of paths and lists, and the header Location."""

from typing import Annotated

from fastapi import Path, Query, Request, Response

from backend.schemas.fields import LARGEST_NUMBER
from backend.schemas.pages import PageQuery

CompanyId = Annotated[int, Path(ge=1, le=LARGEST_NUMBER)]
UserId = Annotated[int, Path(ge=1, le=LARGEST_NUMBER)]
PageOf = Annotated[PageQuery, Query()]


def set_location(request: Request, response: Response, route: str, **parameters: int) -> None:
    """Set Location to the path of the new row, without a host, because clients control the header Host."""
    path = request.app.url_path_for(route, **parameters)
    response.headers["Location"] = request.scope.get("root_path", "") + path
