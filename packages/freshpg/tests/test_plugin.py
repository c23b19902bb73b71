import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from freshpg import Server, ensure_database

from .support import environment, finished, is_alive, python, query, wait_until

CONFTEST = """
import os, psycopg, pytest

def connect(url):
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)

@pytest.fixture(scope="session")
def postgres_prepare():
    def prepare(url):
        with open("prepared", "a") as file:
            print(url, file=file)
        with connect(url) as connection:
            connection.execute('''
                create table things (id int generated always as identity);
                create table alembic_version as select 'head' as version_num;
            ''')
    return prepare
"""

SUITE = """
import sys
import pytest
from conftest import connect

def one(url, statement):
    with connect(url) as connection:
        return connection.execute(statement).fetchone()[0]

@pytest.mark.parametrize("number", range(4))
def test_reset(postgres_committing, number):
    assert one(postgres_committing, "insert into things default values returning id") == 1
    assert one(postgres_committing, "select version_num from alembic_version") == "head"

@pytest.mark.parametrize("number", range(4))
def test_clone(postgres_clone, postgres_database, number):
    assert postgres_clone != postgres_database
    with connect(postgres_clone) as connection:
        connection.execute("drop table things")

def test_empty(postgres_empty):
    assert one(postgres_empty, "select count(*) from pg_class where relname = 'things'") == 0

def test_server(postgres_server):
    assert postgres_server.url.startswith("postgresql+psycopg://")
    if postgres_server.kind == "embedded":
        # Importing these takes as long as starting an embedded server.
        assert not {"docker", "testcontainers"} & set(sys.modules)
        print("DATA", one(postgres_server.url, "show data_directory"))
"""

DATABASES = "select datname from pg_database order by 1"

Project = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    def make(suite: str = SUITE) -> Path:
        (tmp_path / "pytest.ini").write_text(
            "[pytest]\naddopts = -p freshpg.plugin -p no:cacheprovider\nfilterwarnings = error\n",
            encoding="utf-8",
        )
        (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        (tmp_path / "test_suite.py").write_text(suite, encoding="utf-8")
        return tmp_path

    return make


# Other plugins double the time that an inner run takes.
BARE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
WORKERS = ("-p", "xdist", "-n", "2")


def pytest_in(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return finished(python("-m", "pytest", *arguments), cwd=place, **BARE, **variables)


@contextmanager
def pytest_started(place: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = python("-m", "pytest", *arguments)
    with subprocess.Popen(command, cwd=place, env=environment(**BARE), stdout=subprocess.DEVNULL) as run:
        try:
            yield run
        finally:
            run.kill()


def test_the_suite_passes_on_a_server_of_its_own_that_is_announced_and_gone_afterwards(
    project: Project,
) -> None:
    place = project()

    result = pytest_in(place, "-rP")

    assert result.returncode == 0, result.stdout
    assert "10 passed" in result.stdout
    header = [line for line in result.stdout.splitlines() if re.match(r"PostgreSQL \S+, ", line)]
    assert len(header) == 1
    assert header[0].endswith("because Docker does not answer at unix:///nonexistent")
    told = re.search(r"^DATA (\S+)$", result.stdout, re.MULTILINE)
    assert told is not None
    assert not Path(told.group(1)).exists()
    assert len((place / "prepared").read_text(encoding="utf-8").splitlines()) == 1


def test_workers_share_the_one_server_that_the_controller_started(project: Project) -> None:
    place = project(
        "import pathlib, pytest\n"
        "@pytest.mark.parametrize('number', range(4))\n"
        "def test_note(postgres_server, worker_id, number):\n"
        "    pathlib.Path(f'{worker_id}.{number}').write_text(postgres_server.url)\n"
    )

    result = pytest_in(place, *WORKERS, "--postgres", "embedded")

    assert result.returncode == 0, result.stdout
    notes = list(place.glob("gw*"))
    assert {note.stem for note in notes} == {"gw0", "gw1"}
    assert len({note.read_text(encoding="utf-8") for note in notes}) == 1


@pytest.fixture
def guest(embedded: Server) -> Iterator[str]:
    """Return the administrative URL of an ordinary role that may create databases."""
    query(embedded.url, "create role guest login createdb password 'guest'")
    yield embedded.url.replace(embedded.url.split("//")[1].split("@")[0], "guest:guest")
    query(embedded.url, "drop role guest")


@pytest.fixture
def foreign(embedded: Server) -> Iterator[str]:
    """Return the URL of a database that a run did not make, though its name looks so."""
    url = ensure_database(embedded.url, "test_foreign")
    query(url, "create table kept as select 42 as answer")
    yield url
    query(embedded.url, "drop database test_foreign with (force)")


def test_on_a_given_server_an_ordinary_role_leaves_nothing_and_touches_nothing(
    project: Project, guest: str, foreign: str
) -> None:
    before = query(guest, DATABASES)
    place = project()

    result = pytest_in(place, *WORKERS, TEST_DATABASE_URL=guest)

    assert result.returncode == 0, result.stdout
    assert "10 passed" in result.stdout
    assert re.search(
        r"^PostgreSQL \S+, given \(127.0.0.1:\d+/postgres\), as TEST_DATABASE_URL",
        result.stdout,
        re.MULTILINE,
    )
    assert len((place / "prepared").read_text(encoding="utf-8").splitlines()) == 1
    assert query(guest, DATABASES) == before
    assert query(foreign, "table kept") == [(42,)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_drops_its_databases(
    project: Project, guest: str, foreign: str, number: signal.Signals
) -> None:
    before = query(guest, DATABASES)
    place = project(
        "import pathlib, time\n"
        "def test_wait(postgres_committing, postgres_clone):\n"
        "    pathlib.Path('waiting').touch()\n"
        "    time.sleep(60)\n"
    )
    with pytest_started(place, "--postgres", guest) as run:
        wait_until((place / "waiting").exists, "the test waits")
        assert len(query(guest, DATABASES)) == len(before) + 3
        run.send_signal(number)
        run.wait(20)

    assert run.returncode == pytest.ExitCode.INTERRUPTED
    assert query(guest, DATABASES) == before


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["alone", "workers"])
@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ("docker", "--postgres docker was asked for and cannot be had: Docker does not answer at"),
        (
            "postgresql://u:hunter2@127.0.0.1:1/d",
            "The PostgreSQL server given, at 127.0.0.1:1/d, cannot be used",
        ),
    ],
    ids=["docker", "given"],
)
def test_a_server_that_cannot_be_had_is_one_plain_error(
    project: Project, request_: str, line: str, workers: tuple[str, ...]
) -> None:
    result = pytest_in(project(), "--postgres", request_, *workers)

    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.startswith(f"ERROR: {line}")
    assert "Traceback" not in result.stdout + result.stderr
    assert "hunter2" not in result.stdout + result.stderr
    assert "failed" not in result.stdout


def test_a_mistake_in_the_variable_that_names_the_server_is_said_to_be_there(project: Project) -> None:
    result = pytest_in(project(), TEST_DATABASE_URL="mysql://u:hunter2@h/d")

    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.startswith("ERROR: TEST_DATABASE_URL: The URL given")
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["alone", "workers"])
def test_a_users_settings_for_libpq_reach_no_server_of_ours(
    project: Project, workers: tuple[str, ...]
) -> None:
    theirs = {"PGSSLMODE": "require", "PGHOSTADDR": "127.0.0.2", "PGOPTIONS": "-c no_such_setting=1"}
    result = pytest_in(project(), "--postgres", "embedded", *workers, **theirs)

    assert result.returncode == 0, result.stdout


def test_a_failing_tests_report_shows_no_password(project: Project) -> None:
    place = project(
        "import re\n"
        "def test_it(postgres_committing, postgres_clone, postgres_empty, postgres_server):\n"
        "    password = re.search(':([^:@]*)@', postgres_server.url)[1]\n"
        "    open('password', 'w').write(password)\n"
        "    del password\n"
        "    assert postgres_server is None\n"
        "    assert postgres_committing is None\n"
    )

    result = pytest_in(place, "--showlocals", "--postgres", "embedded")

    assert "1 failed" in result.stdout
    assert ":***@127.0.0.1" in result.stdout
    password = (place / "password").read_text(encoding="utf-8")
    shown = [line for line in result.stdout.splitlines() if password in line]
    # The commands that open its databases, on a server that lives no longer than the run, have to have it.
    assert all(line.startswith("psql postgresql://") for line in shown)
    assert len(shown) == 3


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["alone", "workers"])
def test_a_server_that_does_not_start_is_one_plain_error(
    project: Project, reachable: Path, workers: tuple[str, ...]
) -> None:
    """The binaries look whole when they are chosen, and initdb then fails, as on a full disk."""
    place = project()
    programs = reachable / "programs"
    programs.mkdir()
    for name, script in (("postgres", "echo postgres 18.0"), ("initdb", "echo no room; exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    (place / "conftest.py").write_text(
        CONFTEST + "\nfrom freshpg import binaries\n"
        f"found = binaries.Binaries(binaries.Path({str(programs)!r}), '18.0', 'broken')\n"
        "binaries._from_wheel = lambda: found\n",
        encoding="utf-8",
    )

    result = pytest_in(place, "--postgres", "embedded", *workers)

    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    told = result.stdout + result.stderr
    assert "The embedded PostgreSQL did not start: initdb failed with status 1." in told
    assert "no room" in told
    assert "Traceback" not in told
    assert " failed" not in told.replace("initdb failed", "")


@pytest.mark.parametrize("option", ["--collect-only", "--fixtures", "--help"])
def test_where_no_test_runs_nothing_is_looked_for(project: Project, option: str) -> None:
    """The server given would take the connection and never answer, and so any attempt would show."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        port = listener.getsockname()[1]
        result = pytest_in(project(), option, TEST_DATABASE_URL=f"postgresql://u:p@127.0.0.1:{port}/d")

        assert result.returncode == 0, result.stdout + result.stderr
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_forgotten_transaction_fails_its_own_test_alone(project: Project, embedded: Server) -> None:
    place = project(
        "import pytest\n"
        "from conftest import connect\n"
        "held = []\n"
        "@pytest.fixture(scope='session')\n"
        "def postgres_lock_seconds(): return 0.2\n"
        "def test_first(postgres_committing):\n"
        "    held.append(connect(postgres_committing))\n"
        "    held[0].autocommit = False\n"
        "    held[0].execute('insert into things default values')\n"
        "def test_second(postgres_committing):\n"
        "    assert connect(postgres_committing).execute('table things').fetchall() == []\n"
    )

    result = pytest_in(place, "-W", "ignore", "--postgres", embedded.url)

    assert "2 passed, 1 error" in result.stdout
    assert re.search(
        r"pid \d+ \(idle in transaction\), last statement: insert into things default values", result.stdout
    )


def test_a_killed_run_leaves_no_server(project: Project) -> None:
    place = project(
        "import pathlib, time\n"
        "from test_helpers import one\n"
        "def test_wait(postgres_server):\n"
        "    data = one(postgres_server.url, 'show data_directory')\n"
        "    pathlib.Path('making').write_text(data)\n"
        "    pathlib.Path('making').rename('data')\n"
        "    time.sleep(60)\n"
    )
    (place / "test_helpers.py").write_text(SUITE.split("@pytest", maxsplit=1)[0], encoding="utf-8")
    with pytest_started(place, "--postgres", "embedded") as run:
        wait_until((place / "data").exists, "the server runs")
        data = Path((place / "data").read_text(encoding="utf-8"))
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        run.kill()
        run.wait(10)

    wait_until(lambda: not is_alive(pid), "the server is gone")
    wait_until(lambda: not data.parent.exists(), "the directory is gone")
