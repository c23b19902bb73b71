"""Errors, as they are shown (RFC 9457)."""

from typing import Literal

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """What is wrong with one part of a request. What was sent there is not repeated: it may be a secret."""

    location: Literal["body", "query", "path", "header", "cookie"]
    pointer: str = Field(description="Where in it: a JSON pointer (RFC 6901), empty for the whole.")
    message: str


class Problem(BaseModel):
    """`application/problem+json`."""

    type: str = Field(description="Names the kind of problem; `about:blank` where the status says it all.")
    title: str
    status: int
    detail: str | None = Field(default=None, description="What is wrong this time, and what to do about it.")
    instance: str = Field(description="The path that was asked for.")
    errors: list[FieldProblem] | None = Field(default=None, description="Each part that was refused.")
