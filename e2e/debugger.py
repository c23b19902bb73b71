"""A debugger's front end: it speaks the Debug Adapter Protocol with debugpy over a pipe, as an editor does.

https://microsoft.github.io/debug-adapter-protocol/specification
"""

import itertools
import json
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

Message = dict[str, Any]


class Debugger:
    """An adapter that runs as this command, until the context ends; every wait has a deadline in seconds."""

    def __init__(self, command: Sequence[str], *, seconds: float = 120) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.seconds = seconds
        self.numbers = itertools.count(1)
        self.arrived: queue.Queue[Message] = queue.Queue()
        self.passed: list[Message] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        # It closes what it reads: a pipe that is closed under it would fail the test by its thread's exception.
        self.reader.join(self.seconds)
        if self.process.stdin:
            self.process.stdin.close()

    def launch(self, configuration: Message, breakpoint_at: tuple[str, int]) -> None:
        """Start the program of a launch configuration, with a breakpoint on a line of a file."""
        path, line = breakpoint_at
        self.ask("initialize", {"adapterID": "debugpy", "clientID": "e2e", "pathFormat": "path"})
        launched = self.send("launch", configuration)
        self.wait_for_event("initialized")
        where = {"source": {"path": path}, "breakpoints": [{"line": line}]}
        confirmed = self.ask("setBreakpoints", where)["breakpoints"]
        assert [each["line"] for each in confirmed] == [line], confirmed
        self.ask("configurationDone", {})
        self.answer_to(launched)

    def stopped_at(self) -> tuple[str, str, int]:
        """Wait until the program stops at a breakpoint; return the function, the file and the line; let it go on."""
        stop = self.wait_for_event("stopped")
        assert stop["reason"] == "breakpoint", stop
        frames = self.ask("stackTrace", {"threadId": stop["threadId"], "levels": 1})["stackFrames"]
        self.ask("setBreakpoints", {"source": frames[0]["source"], "breakpoints": []})
        self.ask("continue", {"threadId": stop["threadId"]})
        return frames[0]["name"], frames[0]["source"]["path"], frames[0]["line"]

    def ask(self, command: str, arguments: Message) -> Message:
        return self.answer_to(self.send(command, arguments))

    def send(self, command: str, arguments: Message) -> int:
        number = next(self.numbers)
        message = {"seq": number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        assert self.process.stdin
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.process.stdin.flush()
        return number

    def answer_to(self, number: int) -> Message:
        answer = self._take(lambda message: message.get("request_seq") == number, f"the answer to {number}")
        assert answer["success"], answer
        body: Message = answer.get("body") or {}
        return body

    def wait_for_event(self, name: str) -> Message:
        event = self._take(lambda message: message.get("event") == name, name)
        body: Message = event.get("body") or {}
        return body

    def _take(self, is_it: Callable[[Message], bool], what: str) -> Message:
        """Take the first message of this kind, among those that have passed and those to come."""
        for message in self.passed:
            if is_it(message):
                self.passed.remove(message)
                return message
        while True:
            try:
                message = self.arrived.get(timeout=self.seconds)
            except queue.Empty:
                raise AssertionError(f"not within {self.seconds} s: {what}; so far {self.passed}") from None
            if is_it(message):
                return message
            self.passed.append(message)

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as messages:
            while header := messages.readline():
                length = int(header.removeprefix(b"Content-Length:"))
                messages.readline()
                body = messages.read(length)
                # The last may be cut off.
                if len(body) == length:
                    self.arrived.put(json.loads(body))
