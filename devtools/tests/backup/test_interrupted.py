"""Stopped at any point, a backup or restoration leaves what was there, and the next one finishes and cleans up."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import URL, Engine, make_url

from backend.config import ROOT
from backend.database import connect
from backend.tests.application import make_app
from devtools.backup import archive, make, restore
from devtools.backup.tools import Tools
from devtools.tests.support import wait_until

from .stopping import stopped
from .support import Database, backup, query, write_rows


def stop(module: str, where: str, when: str, number: signal.Signals) -> str:
    """Run a command that is stopped there; return what it said."""
    done = subprocess.run(
        stopped(archive.DIRECTORY, module, where, when, number),
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == (130 if number is signal.SIGINT else -number), done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def files() -> list[str]:
    return sorted(path.name for path in archive.DIRECTORY.iterdir() if not path.name.startswith("."))


def partials() -> list[Path]:
    return list(archive.DIRECTORY.glob(".*"))


def test_backup_is_whole_or_not_there(ours: Database) -> None:
    stop("make", "archive:Writer.write", "after", signal.SIGINT)
    assert files() == []
    assert partials() == []
    stop("make", "archive:Writer.write", "after", signal.SIGKILL)
    assert files() == []
    assert len(partials()) == 1
    stop("make", "archive._name", "after", signal.SIGKILL)
    [name] = files()
    with archive.reading(archive.DIRECTORY / name) as whole:
        assert whole.manifest.database == ours.name

    backup(archive.DIRECTORY / "later.zip")

    assert files() == ["later.zip", name]
    assert partials() == []


class Apart(Tools):
    """Programs that no signal of ours reaches, as in a container."""

    left: ClassVar[list[psycopg.Connection]] = []

    def dump(self, url: URL, *_: str) -> Iterator[bytes]:
        self.left.append(psycopg.connect(**url.get_dialect()().create_connect_args(url)[1]))
        yield b"PGDMP"
        raise KeyboardInterrupt


def test_what_dumps_in_a_container_ends_with_an_interrupted_backup(ours: Database, tmp_path: Path) -> None:
    url = make_url(ours.driver_url)

    with pytest.raises(KeyboardInterrupt), make.direct(url) as connection:
        make.save(connection, url, Apart("nowhere", lambda program: [program]), tmp_path / "a.zip")

    with Apart.left.pop() as left, pytest.raises(psycopg.errors.AdminShutdown):
        left.execute("SELECT 1")
    assert list(tmp_path.glob("*.zip")) == []


UNDONE = [
    ("beside.comment_on", "1"),  # created, and not marked yet
    ("tools:Tools.restore", "after"),
    ("filling.verify_properties", "after"),
    ("beside:_Ender._end", "after"),
    ("beside.comment_on", "3"),  # both are renamed, in a transaction
]


@pytest.mark.parametrize(
    ("number", "points"),
    [(signal.SIGKILL, UNDONE), (signal.SIGINT, [("beside.create", "1"), *UNDONE[1:4:2]])],
    ids=["SIGKILL", "SIGINT"],
)
def test_restoration_that_is_stopped_changed_nothing_and_the_next_one_finishes(
    number: signal.Signals, points: list[tuple[str, str]], ours: Database
) -> None:
    backup()
    ours.run("CREATE TABLE precious AS SELECT 42 AS answer")
    for where, when in points:
        said = stop("restore", where, when, number)
        assert ours.ask("SELECT answer FROM precious") == 42
        # What a killed one left goes when the next begins.
        assert len(ours.beside()) == (2 if number is signal.SIGKILL else 1), (where, ours.beside())
        assert said == ("" if number is signal.SIGKILL else "Interrupted. Nothing was changed.\n")

    restore.main(["--drop-old"])

    assert ours.ask("SELECT to_regclass('precious') IS NULL") is True
    assert ours.beside() == [ours.name]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_restoration_that_is_stopped_after_the_change_is_done(number: signal.Signals, ours: Database) -> None:
    backup()
    ours.run("CREATE TABLE precious AS SELECT 42 AS answer")

    said = stop("restore", "beside.swap", "after", number)

    assert said == ("" if number is signal.SIGKILL else "Interrupted. The backup is in its place.\n")
    name, kept = ours.beside()
    assert name == ours.name
    assert ours.ask("SELECT to_regclass('precious') IS NULL") is True
    assert Database(ours.server, kept).ask("SELECT answer FROM precious") == 42
    restore.main([])
    restore.main(["--drop-kept"])
    assert ours.beside() == [ours.name]


@pytest.fixture
def engine(ours: Database) -> Iterator[Engine]:
    engine = connect(ours.driver_url)
    yield engine
    engine.dispose()


def test_api_that_writes_meanwhile_goes_on_and_nothing_that_it_took_is_lost(
    ours: Database, engine: Engine
) -> None:
    """What it took before the change is in the database that was kept, what it took after that in the new one."""
    write_rows(ours.driver_url, 1000)
    path = backup()
    taken: list[str] = []
    refusals: list[int] = []
    is_over = threading.Event()
    client = TestClient(make_app(engine), raise_server_exceptions=False)

    def write(number: int) -> None:
        count = 0
        while not is_over.is_set():
            count += 1
            name = f"Taken {number} {count}"
            status = client.post("/api/v1/companies", json={"name": name}).status_code
            if status == 201:
                taken.append(name)
            else:
                refusals.append(status)

    with client:
        writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        for writer in writers:
            writer.start()
        try:
            # So many does its backup hold at the least.
            wait_until(lambda: len(taken) >= 5, "the API writing")
            backup(path.with_name("meanwhile.zip"))
            restore.main([str(path)])
            before = len(taken)
            wait_until(lambda: len(taken) >= before + 20, "the API writing on")
        finally:
            is_over.set()
            for writer in writers:
                writer.join()
        [kept] = [name for name in ours.beside() if "_before_" in name]
        names = "SELECT name FROM companies WHERE name LIKE 'Taken%'"
        found = [*query(ours.url, names), *query(Database(ours.server, kept).url, names)]

        assert sorted(str(name) for (name,) in found) == sorted(taken)
        assert set(refusals) <= {503}
        assert ours.ask("SELECT count(*) FROM usage_logs") == 1000
        restore.main([str(path.with_name("meanwhile.zip"))])
        assert 25 <= int(str(ours.ask("SELECT count(*) FROM companies"))) <= 20 + before
