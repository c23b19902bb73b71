"""What killed runs leave on a given server: recognised by its mark, and dropped by the next run on the same machine."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from freshpg import Server, ensure_database
from freshpg.databases import Databases
from freshpg.keeping import keep
from freshpg.ledger import Use
from freshpg.marks import mark
from freshpg.owner import Owner, acting_owner, this_process

from .support import is_alive, python, query, wait_until
from .test_plugin import DATABASES, WORKERS, Project, pytest_in, pytest_started
from .test_plugin import guest as guest  # noqa: PLC0414 (for pytest to find it here as well)
from .test_plugin import project as project  # noqa: PLC0414 (likewise)

WAITING = (
    "import os, pathlib, time\n"
    "def test_wait(postgres_database, postgres_clone, postgres_empty, tmp_path_factory):\n"
    "    name = os.environ.get('PYTEST_XDIST_WORKER', 'main')\n"
    "    pathlib.Path(f'making {name}').write_text(f'{os.getpid()}')\n"
    "    pathlib.Path(f'making {name}').rename(f'waiting {name}')\n"
    "    time.sleep(60)\n"
)


def databases(url: str) -> set[object]:
    return {name for (name,) in query(url, DATABASES)}


@pytest.fixture
def served(embedded: Server) -> Iterator[psycopg.Connection]:
    with psycopg.connect(embedded.url, autocommit=True) as connection:
        yield connection


def a_process_that_is_gone() -> Owner:
    """Return an owner whose number another process may have by now, born at another time."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return Owner(this_process().machine, ended.pid, "1")


def marked(served: psycopg.Connection, name: str, owner: Owner | str, monkeypatch: pytest.MonkeyPatch) -> str:
    ensure_database(served.info.dsn + f" password={served.info.password}", name)
    monkeypatch.setattr("freshpg.marks.acting_owner", lambda: owner)
    mark(served, name)
    return name


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["alone", "workers"])
def test_what_a_killed_run_left_is_dropped_by_the_next(
    project: Project, guest: str, workers: tuple[str, ...]
) -> None:
    before = databases(guest)
    place = project(WAITING)
    with pytest_started(place, *workers, "--postgres", guest) as run:
        wait_until(lambda: bool(list(place.glob("waiting *"))), "the test waits", 30)
        left = databases(guest) - before
        assert len(left) == 4
        # They are the run's, and not the worker's, which may be killed and replaced while others use its template.
        marks = query(
            guest, "select shobj_description(oid, 'pg_database') from pg_database where datname ~ '^test_'"
        )
        assert [str(mark).split(": ")[1].split()[1] for (mark,) in marks] == [str(run.pid)] * 4
        # Another run beside a living one leaves it alone.
        (place / "test_suite.py").write_text("def test_it(postgres_database): pass\n", encoding="utf-8")
        result = pytest_in(place, "--postgres", guest)
        assert result.returncode == 0, result.stdout
        assert databases(guest) - before == left
        pids = [int(each.read_text(encoding="utf-8")) for each in place.glob("waiting *")]
        run.kill()
        run.wait(10)
        for pid in pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)

    result = pytest_in(place, "--postgres", guest)

    assert result.returncode == 0, result.stdout
    told = f"Databases that a killed run had left were dropped: {', '.join(sorted(map(str, left)))}"
    assert told in result.stdout
    assert databases(guest) == before


def test_only_what_bears_the_mark_of_a_process_of_this_machine_that_is_gone_is_dropped(
    served: psycopg.Connection, embedded: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = a_process_that_is_gone()
    elsewhere = Owner("another-boot/4026531836", gone.pid, gone.born)
    names = {
        "gone": marked(served, "test_0123456789_gone", gone, monkeypatch),
        "living": marked(served, "test_0123456789_living", this_process(), monkeypatch),
        "elsewhere": marked(served, "test_0123456789_elsewhere", elsewhere, monkeypatch),
        "garbled": marked(served, "test_0123456789_garbled", "no owner at all", monkeypatch),
        "other name": marked(served, "theirs", gone, monkeypatch),
        "kept": marked(served, "test_0123456789_kept", gone, monkeypatch),
        "unmarked": "test_0123456789_unmarked",
        "commented": "test_0123456789_commented",
    }
    ensure_database(embedded.url, names["unmarked"])
    ensure_database(embedded.url, names["commented"])
    served.execute(f"comment on database {names['commented']} is '{gone}'")
    keep(Use("test_it", "clone", names["kept"], ""), embedded)
    theirs = Databases(embedded.url, "another_run")
    try:
        assert theirs.drop_abandoned() == [names.pop("gone")]
        assert set(names.values()) <= databases(embedded.url)
    finally:
        theirs.close()
        for name in names.values():
            served.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))


def test_a_database_that_another_role_owns_stays_and_is_no_failure(
    served: psycopg.Connection, guest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = marked(served, "test_0123456789_theirs", a_process_that_is_gone(), monkeypatch)
    ours = Databases(guest, "run")
    try:
        assert ours.drop_abandoned() == []
    finally:
        ours.close()
        served.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))


def test_a_process_is_gone_once_it_has_ended_and_not_before(tmp_path: Path) -> None:
    script = "from freshpg.owner import this_process as p; print(p(), flush=True); input()"
    with subprocess.Popen(
        python("-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        owner = Owner.parse(process.stdout.readline().strip())
        assert owner is not None
        assert owner.pid == process.pid
        assert not owner.is_gone()
        process.kill()
        # It waits to be reaped, and does nothing any more.
        wait_until(owner.is_gone, "the process is gone")
    assert owner.is_gone()
    assert Owner.parse(str(owner)) == owner


def test_a_process_that_has_the_number_of_another_is_not_taken_for_it() -> None:
    me = this_process()

    assert Owner(me.machine, me.pid, "1").is_gone()
    assert not me.is_gone()
    assert acting_owner() == me or "PYTEST_XDIST_WORKER" in os.environ
