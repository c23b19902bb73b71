"""ASGI middleware: HEAD requests, the limit on bodies, and plain messages if the startup fails."""

import sys

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.errors import UserError

LARGEST_BODY = 1024 * 1024  # bytes; what the API takes is JSON of a few kilobytes


def answer_head(app: ASGIApp) -> ASGIApp:
    """Answer HEAD like GET, without the body (RFC 9110, section 9.3.2)."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        if scope["type"] == "http" and scope["method"] == "HEAD":
            await app({**scope, "method": "GET"}, receive, send_without_body)
        else:
            await app(scope, receive, send)

    return call


def limit_body(app: ASGIApp) -> ASGIApp:
    """Refuse a body as soon as more than `LARGEST_BODY` of it has arrived, whatever Content-Length says."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise HTTPException(413)
            return message

        await app(scope, receive_bounded, send)

    return call


def report_plainly(app: ASGIApp) -> ASGIApp:
    """Report a UserError at startup by its message; Starlette would send the server a traceback."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def report(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, UserError):
                message = {**message, "message": str(error)}
            await send(message)

        await app(scope, receive, report if scope["type"] == "lifespan" else send)

    return call
