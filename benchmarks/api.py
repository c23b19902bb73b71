"""The requests per second of the API, with 16, 100 and 500 clients, and compared with ten lines of FastAPI."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from sqlalchemy import NullPool, text

from backend.database import connect, init_db
from backend.tests.loopback import free_port
from benchmarks.reporting import print_table, take_turns
from devtools.database import temporary

WORKERS, CONNECTIONS, CLIENTS, REQUESTS = 2, 16, (16, 100, 500), 4000
OURS, MINIMAL = "--factory backend.main:create_app", "benchmarks.minimal_api:app"
READ, LIST = "GET /api/v1/companies/7", "GET /api/v1/companies?limit=50"
CREATE, HEALTH = "POST /api/v1/companies", "GET /health/ready"


@dataclass
class Load:
    """Clients that each send the next request as soon as the last one is answered, until `left` have been sent."""

    port: int
    request: str
    left: int
    rate: float = 0  # answers per second from the first answer of each client to the last request
    began: float = 0
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    check: float = 0  # seconds of the slowest health check meanwhile

    async def run(self, clients: int, *, check_health: bool = False) -> float:
        streams = [await asyncio.open_connection("127.0.0.1", self.port) for _ in range(clients)]
        load = asyncio.gather(*(self.client(clients, *stream) for stream in streams))
        while check_health and not load.done():
            await (health := Load(self.port, HEALTH, 1)).run(1)
            self.check = max(self.check, *health.seconds)
            await asyncio.sleep(0.1)
        await load
        return self.rate

    async def client(self, clients: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = '{"name": "Acme"}' if self.request == CREATE else ""
        head = f"{self.request} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        message = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        while self.left > 0:
            self.left -= 1
            sent = time.perf_counter()
            if self.left == 0:
                self.rate = (len(self.seconds) - clients) / (sent - self.began)
            writer.write(message)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(answer.partition("content-length: ")[2].partition("\r\n")[0]))
            self.seconds.append(time.perf_counter() - sent)
            self.statuses[answer.split()[1]] += 1
            if len(self.seconds) == clients:
                self.began = time.perf_counter()
        writer.close()


@contextlib.contextmanager
def served(application: str, url: str) -> Iterator[int]:
    """Serve an application with uvicorn, and yield its port."""
    port = free_port()
    options = f"--log-level warning --no-access-log --port {port} --workers {WORKERS} {application}"
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *options.split()],
        env=os.environ | {"DATABASE_URL": url, "APP_ENV": "test", "API_TOKEN": ""},
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                asyncio.run(Load(port, READ, 200).run(CONNECTIONS))
                break
            time.sleep(0.1)  # it does not listen yet
        yield port
    finally:
        process.terminate()
        process.wait()


def compare(url: str, runs: int) -> None:
    rates, rows = defaultdict[tuple[str, int], list[float]](list), []
    with served(OURS, url) as ours, served(MINIMAL, url) as minimal:
        for request in take_turns((READ, LIST, CREATE), runs):
            for port in (ours, minimal):
                rates[request, port].append(asyncio.run(Load(port, request, REQUESTS // 4).run(CONNECTIONS)))
    for request in (READ, LIST, CREATE):
        pair = rates[request, ours], rates[request, minimal]
        ratio = median(a / b for a, b in zip(*pair, strict=True))
        rows.append([request, *(f"{median(side):.0f}" for side in pair), f"{ratio:.2f}"])
    headings = ("", "this API", "ten lines", "ratio")
    print_table(f"{WORKERS} workers, {CONNECTIONS} clients, requests per second", headings, rows)


def crowd(url: str, runs: int) -> None:
    """Measure each number of clients; the ratio is to the first number in the same run."""
    loads, rows = defaultdict[int, list[Load]](list), []
    with served(OURS, url) as port:
        for clients in take_turns(CLIENTS, runs):
            loads[clients].append(Load(port, READ, REQUESTS))
            asyncio.run(loads[clients][-1].run(clients, check_health=True))
    for clients, measured in loads.items():
        seconds = sorted(second for load in measured for second in load.seconds)
        ratio = median(a.rate / b.rate for a, b in zip(measured, loads[CLIENTS[0]], strict=True))
        statuses = sum((load.statuses for load in measured), Counter[str]())
        row = [str(clients), f"{median(load.rate for load in measured):.0f}", f"{ratio:.2f}"]
        row += [f"{seconds[len(seconds) * 99 // 100]:.2f} s", f"{max(load.check for load in measured):.2f} s"]
        rows.append([*row, ", ".join(f"{count} x {status}" for status, count in statuses.items())])
    headings = ("clients", "per second", "ratio", "slowest 1%", "slowest health check", "answers")
    print_table(f"{WORKERS} workers: {READ}", headings, rows)


def main(runs: int = 3) -> None:
    with temporary("Using a temporary database", "api") as url:
        init_db(engine := connect(url, poolclass=NullPool))
        with engine.begin() as connection:
            connection.execute(
                text("INSERT INTO companies (name) SELECT 'Acme' FROM generate_series(1, 1000)")
            )
        crowd(url, runs)
        compare(url, runs)
