"""Errors, as they are sent (RFC 9457)."""

from typing import Literal

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """The error in one part of a request. It does not repeat the value that was sent, which may be a secret."""

    location: Literal["body", "query", "path", "header", "cookie"]
    pointer: str = Field(description="A JSON pointer (RFC 6901) to the part; empty for the request itself.")
    message: str


class Problem(BaseModel):
    """`application/problem+json`."""

    type: str = Field(
        description="Identifies the kind of problem; `about:blank` if the status says everything."
    )
    title: str
    status: int
    detail: str | None = Field(default=None, description="What is wrong this time, and what to do about it.")
    instance: str = Field(description="The path of the request.")
    errors: list[FieldProblem] | None = Field(default=None, description="Each invalid part of the request.")
