"""What the API serves: with 16, 100 and 500 clients at once, and compared with ten lines of FastAPI and SQLAlchemy."""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

import freshpg
from backend.database import connect, init_db
from backend.models.models import Company
from backend.tests.loopback import free_port

WORKERS, CONNECTIONS = 2, 16
CLIENTS = (16, 100, 500)
REQUESTS = 2000  # in each measurement
OURS = ("--factory", "backend.main:create_app")
TEN_LINES = ("benchmarks.api_ten_lines:app",)
READ, LIST = b"GET /api/v1/companies/7", b"GET /api/v1/companies?limit=50"
POST, HEALTH = b"POST /api/v1/companies", b"GET /health/ready"
KINDS = {"read one": READ, "list of 50": LIST, "create one": POST}
BODY = b'{"name": "Acme"}'


@dataclass
class Load:
    """Clients that each send the next request as soon as the last one is answered, until `left` have been sent."""

    port: int
    request: bytes
    left: int
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def text(self) -> bytes:
        body = BODY if self.request.startswith(b"POST") else b""
        head = (
            b"%b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        )
        return head % (self.request, len(body)) + body

    async def run(self, clients: int) -> float:
        """Return how many requests a second were answered."""
        streams = [await asyncio.open_connection("127.0.0.1", self.port) for _ in range(clients)]
        began = time.perf_counter()
        await asyncio.gather(*(self.client(*stream) for stream in streams))
        return len(self.seconds) / (time.perf_counter() - began)

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.left > 0:
            self.left -= 1
            began = time.perf_counter()
            writer.write(self.text)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            self.seconds.append(time.perf_counter() - began)
            self.statuses[int(head.split(maxsplit=2)[1])] += 1
        writer.close()


@contextlib.contextmanager
def served(application: tuple[str, ...], url: str) -> Iterator[int]:
    """Serve an application with uvicorn, and give its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--workers", str(WORKERS)]
    process = subprocess.Popen(
        [*command, "--no-access-log", "--log-level", "warning", *application],
        env=os.environ | {"DATABASE_URL": url, "APP_ENV": "test", "API_TOKEN": ""},
    )
    try:
        wait_until_it_answers(process, port)
        yield port
    finally:
        process.terminate()
        process.wait()


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asyncio.run(Load(port, READ, 50).run(4))
            return
        time.sleep(0.1)
    sys.exit("The server stopped.")


async def measure_health(port: int, load: Awaitable[float]) -> tuple[float, float]:
    """Return the load's requests a second, and how long the slowest health check took meanwhile."""
    task = asyncio.ensure_future(load)
    slowest = 0.0
    while not task.done():
        check = Load(port, HEALTH, 1)
        await check.run(1)
        slowest = max(slowest, *check.seconds)
        await asyncio.sleep(0.1)
    return await task, slowest


def compare(console: Console, url: str, runs: int) -> None:
    """Measure both in turns, because a machine is faster at one time than at another."""
    rates: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with served(OURS, url) as ours, served(TEN_LINES, url) as ten_lines:
        for _ in range(runs):
            for kind, request in KINDS.items():
                pair = [
                    asyncio.run(Load(port, request, REQUESTS // 3).run(CONNECTIONS))
                    for port in (ours, ten_lines)
                ]
                rates[kind].append((pair[0], pair[1]))
    table = Table(box=box.SIMPLE, title=f"{WORKERS} workers, {CONNECTIONS} clients: requests per second")
    for name in ("", "this API", "ten lines", "ratio"):
        table.add_column(name, justify="right")
    for kind, pairs in rates.items():
        ours_rate, ten_lines_rate = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        table.add_row(kind, f"{ours_rate:.0f}", f"{ten_lines_rate:.0f}", f"{ratio:.2f}")
    console.print(table)


def load(console: Console, url: str, runs: int) -> None:
    """Measure each number of clients in turns; the ratio is to the first number in the same turn."""
    loads: dict[int, list[Load]] = {clients: [] for clients in CLIENTS}
    rates: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    checks: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    with served(OURS, url) as port:
        for _ in range(runs):
            for clients in CLIENTS:
                reads = Load(port, READ, REQUESTS)
                rate, slowest = asyncio.run(measure_health(port, reads.run(clients)))
                loads[clients].append(reads)
                rates[clients].append(rate)
                checks[clients].append(slowest)
    table = Table(box=box.SIMPLE, title=f"{WORKERS} workers, reads of one company")
    for name in ("clients", "per second", "ratio", "median", "slowest 1%", "slowest health check", "answers"):
        table.add_column(name, justify="right")
    for clients, measured in loads.items():
        seconds = sorted(second for reads in measured for second in reads.seconds)
        statuses = sum((reads.statuses for reads in measured), Counter[int]())
        ratio = statistics.median(a / b for a, b in zip(rates[clients], rates[CLIENTS[0]], strict=True))
        table.add_row(
            str(clients),
            f"{statistics.median(rates[clients]):.0f}",
            f"{ratio:.2f}",
            f"{statistics.median(seconds) * 1000:.0f} ms",
            f"{seconds[len(seconds) * 99 // 100] * 1000:.0f} ms",
            f"{max(checks[clients]) * 1000:.0f} ms",
            ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())),
        )
    console.print(table)


def main(runs: int = 3) -> None:
    console = Console()
    with freshpg.choose("auto").start() as server:
        url = freshpg.sqlalchemy_url(server.url)
        engine = connect(url)
        init_db(engine)
        with engine.begin() as connection:
            connection.execute(insert(Company), [{"name": f"Company {number}"} for number in range(1000)])
        engine.dispose()
        load(console, url, runs)
        compare(console, url, runs)
