"""The application, driven in this process: a small ASGI client, so that no server and no package is needed."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Answer:
    """A response. One whose application raised has status 500 and the exception as its text."""

    status: int
    text: str

    def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        return json.loads(self.text)


class Client:
    """Run an application, its startup and shutdown included, for as long as the context lasts."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._runner = asyncio.Runner()
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._life: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        try:
            self._runner.run(self._start())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._stop())
        finally:
            self._runner.close()

    def send(self, method: str, target: str, body: Mapping[str, object] | None = None) -> Answer:
        """Send a request to a path, with its query, and return the answer."""
        return self._runner.run(self._send(method, target, body))

    async def _start(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._life = asyncio.ensure_future(_as_coroutine(self._application, scope, self._inbox, self._outbox))
        await self._say("lifespan.startup")

    async def _stop(self) -> None:
        await self._say("lifespan.shutdown")
        if self._life is not None:
            await self._life

    async def _say(self, word: str) -> None:
        """Tell the application, and wait until it has done it. What it raises is raised here."""
        if self._life is None:
            return
        await self._inbox.put({"type": word})
        answer = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait({answer, self._life}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            await self._life
        elif answer.result()["type"] != f"{word}.complete":
            await self._life
            raise RuntimeError(f"the application failed at {word}: {answer.result().get('message')}")

    async def _send(self, method: str, target: str, body: Mapping[str, object] | None) -> Answer:
        path, _, query = target.partition("?")
        content = b"" if body is None else json.dumps(body).encode()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (b"host", b"localhost"),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
            ],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        return await _exchange(self._application, scope, content)


async def _exchange(application: Application, scope: MutableMapping[str, Any], content: bytes) -> Answer:
    sent: list[Message] = []
    unread = [content]

    async def receive() -> Message:
        if not unread:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": unread.pop(), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        await application(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - this is the application's edge, where a server would log it
        return Answer(500, f"{type(error).__name__}: {error}")
    status = next((message["status"] for message in sent if message["type"] == "http.response.start"), 500)
    return Answer(status, b"".join(message.get("body", b"") for message in sent).decode())


async def _as_coroutine(
    application: Application,
    scope: MutableMapping[str, Any],
    inbox: asyncio.Queue[Message],
    outbox: asyncio.Queue[Message],
) -> None:
    await application(scope, inbox.get, outbox.put)
