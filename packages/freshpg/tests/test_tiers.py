"""The tiers beside one another, in runs of their own: what a test does no other sees, and what it spoils is named."""

import re
from pathlib import Path

import pytest

from freshpg import Server

from .support import finished, python, query

CONFTEST = """
import psycopg, pytest
from sqlalchemy import text

def plain(url):
    return psycopg.connect(str(url).replace("+psycopg", ""), autocommit=True)

def ask(url, statement):
    with plain(url) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None

def count(engine):
    with engine.connect() as connection:
        return connection.scalar(text("select count(*) from things"))

def add(engine):
    with engine.begin() as connection:
        return connection.scalar(text("insert into things default values returning id"))

@pytest.fixture(scope="session")
def postgres_lock_seconds():
    return 0.2

@pytest.fixture(scope="session")
def postgres_prepare():
    return lambda url: ask(url, "create table things (id int generated always as identity, word text)")
"""

BARE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
HEAD = "import pytest, os\nfrom sqlalchemy import text\nfrom conftest import *\n"


class Place:
    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url
        (path / "pytest.ini").write_text(
            "[pytest]\naddopts = -p freshpg.plugin -p no:cacheprovider\nfilterwarnings = error\n",
            encoding="utf-8",
        )
        (path / "conftest.py").write_text(CONFTEST, encoding="utf-8")

    def run(self, suite: str, *arguments: str, conftest: str = "") -> str:
        (self.path / "test_suite.py").write_text(HEAD + suite, encoding="utf-8")
        (self.path / "conftest.py").write_text(CONFTEST + conftest, encoding="utf-8")
        command = python("-m", "pytest", "--postgres", self.url, *arguments)
        result = finished(command, cwd=self.path, **BARE)
        return result.stdout + result.stderr


@pytest.fixture
def place(tmp_path: Path, embedded: Server) -> Place:
    return Place(tmp_path, embedded.url)


@pytest.fixture
def as_ordinary(tmp_path: Path, embedded: Server) -> Place:
    return Place(tmp_path, embedded.url.replace(embedded.url.split("//")[1].split("@")[0], "plain:plain"))


MIXED = """
tiers = pytest.mark.parametrize("number", range(3))

@tiers
def test_default(postgres_engine, number):
    assert count(postgres_engine) == 0
    add(postgres_engine)
    assert count(postgres_engine) == 1

@tiers
@pytest.mark.postgres("committing")
def test_committing(postgres_engine, postgres_database, number):
    assert count(postgres_engine) == 0
    assert add(postgres_engine) == 1
    assert ask(postgres_database, "select count(*) from things") == 1

@tiers
@pytest.mark.postgres("clone")
def test_clone(postgres_engine, postgres_database, number):
    name = postgres_engine.url.database
    assert name not in postgres_database
    with postgres_engine.begin() as connection:
        assert connection.scalar(text("select current_database()")) == name
        connection.execute(text("drop table things"))

@tiers
@pytest.mark.postgres("empty")
def test_empty(postgres_engine, number):
    with postgres_engine.begin() as connection:
        assert connection.scalar(text("select to_regclass('things')")) is None
        connection.execute(text("create table things ()"))

@tiers
def test_by_fixture(postgres_committing, postgres_engine, number):
    assert postgres_engine.url.database in postgres_committing
    add(postgres_engine)
    assert ask(postgres_committing, "select count(*) from things") == 1

engines = set()

@pytest.mark.parametrize("tier", [pytest.param(tier, marks=pytest.mark.postgres(tier))
                                  for tier in ("session", "committing", "clone", "empty")])
def test_one_engine(postgres_engine, tier):
    engines.add(postgres_engine)
    assert len(engines) == 1
"""


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "workers"])
@pytest.mark.parametrize(
    "order",
    [("-p", "no:randomly"), ("-p", "pytest_randomly", "--randomly-seed", "1")],
    ids=["in order", "shuffled"],
)
def test_tiers_side_by_side_in_any_order_see_nothing_of_one_another(
    place: Place, embedded: Server, workers: tuple[str, ...], order: tuple[str, ...]
) -> None:
    before = query(embedded.url, "select datname from pg_database order by 1")

    told = place.run(MIXED, *order, *workers)

    assert "19 passed" in told, told
    assert query(embedded.url, "select datname from pg_database order by 1") == before


def test_ordinary_role_on_a_given_server_has_all_tiers(as_ordinary: Place, embedded: Server) -> None:
    query(embedded.url, "create role plain login createdb password 'plain'")
    try:
        told = as_ordinary.run(MIXED)
    finally:
        query(embedded.url, "drop role plain")

    assert "19 passed" in told, told


def test_committed_schema_change_fails_its_test_alone_by_name(place: Place) -> None:
    told = place.run(
        '@pytest.mark.postgres("committing")\n'
        "def test_changes(postgres_engine):\n"
        "    with postgres_engine.begin() as connection:\n"
        "        connection.execute(text('alter table things add column more text'))\n"
        '@pytest.mark.postgres("committing")\n'
        "def test_next(postgres_engine, postgres_database):\n"
        "    assert add(postgres_engine) == 1\n"
        "    assert ask(postgres_database, 'select count(*) from things') == 1\n"
        "def test_session(postgres_engine):\n"
        "    with postgres_engine.connect() as connection:\n"
        "        assert list(connection.execute(text('select * from things')).keys()) == ['id', 'word']\n"
    )

    assert "3 passed, 1 error" in told, told
    assert "ERROR at teardown of test_changes" in told
    assert "The test changed more than rows: column more of table things was created." in told


def test_committed_schema_change_past_the_engine_is_named_in_the_tier_session_too(place: Place) -> None:
    told = place.run(
        "def test_changes(postgres_engine, postgres_database):\n"
        "    assert count(postgres_engine) == 0\n"
        "    ask(postgres_database, 'create table more ()')\n"
        "def test_next(postgres_engine):\n"
        "    add(postgres_engine)\n"
        '@pytest.mark.postgres("committing")\n'
        "def test_last(postgres_engine):\n"
        "    assert add(postgres_engine) == 1\n"
    )

    assert "3 passed, 1 error" in told, told
    assert "table more was created" in told


def test_forgotten_transaction_fails_its_test_alone(place: Place) -> None:
    told = place.run(
        "held = []\n"
        "def test_forgets(postgres_committing):\n"
        "    held.append(psycopg.connect(postgres_committing.replace('+psycopg', '')))\n"
        "    held[0].execute('insert into things default values')\n"
        '@pytest.mark.postgres("committing")\n'
        "def test_next(postgres_engine):\n"
        "    assert count(postgres_engine) == 0\n",
        "-W",
        "ignore",
    )

    assert "2 passed, 1 error" in told, told
    assert re.search(
        r"pid \d+ \(idle in transaction\), last statement: insert into things default values", told
    )


@pytest.mark.parametrize("tier", ["session", "committing", "clone"])
@pytest.mark.parametrize("what", ["begin", "before_cursor_execute", "checkout"])
def test_what_listens_to_the_engine_hears_its_own_test_alone(place: Place, tier: str, what: str) -> None:
    told = place.run(
        "from sqlalchemy import event\nheard = []\n"
        f"@pytest.mark.postgres({tier!r})\n"
        "def test_listens(postgres_engine):\n"
        f"    event.listen(postgres_engine, {what!r}, lambda *_: heard.append(1))\n"
        "    count(postgres_engine)\n"
        "    assert heard\n"
        f"@pytest.mark.postgres({tier!r})\n"
        "def test_next(postgres_engine):\n"
        "    heard.clear()\n"
        "    count(postgres_engine)\n"
        "    assert heard == []\n"
    )

    assert "2 passed" in told, told


@pytest.mark.parametrize("whose", ["", " and application_name = ''"], ids=["all", "the tests' own"])
def test_a_test_that_ends_backends_harms_no_other(place: Place, whose: str) -> None:
    backends = f"from pg_stat_activity where datname ~ 'shared' and pid <> pg_backend_pid(){whose}"
    kill = f'    ask(postgres_server.url, "select count(pg_terminate_backend(pid, 5000)) {backends}")\n'
    check = "    add(postgres_engine)\n    assert count(postgres_engine) == 1\n"
    told = place.run(
        "def test_a(postgres_engine):\n" + check
        + '@pytest.mark.postgres("committing")\ndef test_b(postgres_engine, postgres_server):\n' + check + kill
        + "def test_c(postgres_engine, postgres_server):\n" + check + kill
        + "def test_d(postgres_engine):\n" + check
        + '@pytest.mark.postgres("committing")\ndef test_e(postgres_engine):\n' + check
    )  # fmt: skip

    assert "5 passed" in told, told


def test_what_a_session_test_locked_is_free_when_the_next_begins(place: Place) -> None:
    """The rollback is not waited for at the test's end, but before anybody can meet its locks."""
    told = place.run(
        "from psycopg.pq import TransactionStatus\nheld = []\n"
        "def test_locks(postgres_engine):\n"
        "    with postgres_engine.begin() as connection:\n"
        "        connection.execute(text('lock table things'))\n"
        "        held.append(connection.connection.driver_connection.pgconn)\n"
        "def test_next():\n"
        "    assert held[0].transaction_status != TransactionStatus.ACTIVE\n"
        "def test_last(postgres_database):\n"
        "    with plain(postgres_database) as connection, connection.transaction():\n"
        "        connection.execute('lock table things nowait')\n",
    )

    assert "3 passed" in told, told


def test_what_a_session_test_commits_past_the_engine_is_gone(place: Place) -> None:
    told = place.run(
        "def test_a(postgres_engine, postgres_database):\n"
        "    ask(postgres_database, 'insert into things default values')\n"
        "    assert count(postgres_engine) == 1\n"
        "def test_b(postgres_engine):\n"
        "    assert count(postgres_engine) == 0\n"
    )

    assert "2 passed" in told, told


@pytest.mark.parametrize("tier", ["session", "committing"])
def test_what_a_test_without_a_tier_writes_is_gone(place: Place, tier: str) -> None:
    told = place.run(
        "def test_a(postgres_database):\n"
        "    ask(postgres_database, 'insert into things default values')\n"
        f"@pytest.mark.postgres({tier!r})\n"
        "def test_b(postgres_engine):\n"
        "    assert count(postgres_engine) == 0\n"
    )

    assert "2 passed" in told, told


def test_failed_test_is_told_of_its_tier_where_it_committed(place: Place) -> None:
    told = place.run(
        "def test_commits(postgres_engine):\n    add(postgres_engine)\n    assert 1 == 2\n"
        '@pytest.mark.postgres("committing")\n'
        "def test_truly(postgres_engine):\n    add(postgres_engine)\n    assert 1 == 2\n"
    )

    assert "2 failed" in told, told
    assert told.count("In the tier session the test's 1 commits were savepoints") == 1


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "workers"])
@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ('@pytest.mark.postgres("comitting")\ndef test_it(postgres_engine): ...\n',
         "@pytest.mark.postgres takes one of session, committing, clone, empty, and not 'comitting'."),
    ],
)  # fmt: skip
def test_wrong_word_in_the_marker_is_one_plain_line(
    place: Place, suite: str, said: str, workers: tuple[str, ...]
) -> None:
    told = place.run(suite, *workers)

    assert said in told
    assert "passed" not in told


@pytest.mark.parametrize(
    ("arguments", "mark"),
    [
        ("postgres_engine, postgres_clone, postgres_empty", ""),
        ("postgres_engine, postgres_committing", '@pytest.mark.postgres("session")\n'),
    ],
)
def test_two_tiers_for_one_engine_are_refused(place: Place, arguments: str, mark: str) -> None:
    told = place.run(f"{mark}def test_it({arguments}): ...\n")

    assert "1 error" in told, told
    assert "test_suite.py::test_it " in told


def test_url_that_is_asked_for_beside_a_committing_engine_empties_nothing_before_the_end(
    place: Place,
) -> None:
    told = place.run(
        '@pytest.mark.postgres("committing")\n'
        "def test_asks(request, postgres_engine):\n"
        "    add(postgres_engine)\n"
        "    assert ask(request.getfixturevalue('postgres_committing'), 'select count(*) from things') == 1\n"
        "def test_next(postgres_engine):\n"
        "    assert count(postgres_engine) == 0\n",
        *("-p", "no:randomly"),
    )

    assert "2 passed" in told, told


def test_separate_databases_go_together(place: Place) -> None:
    told = place.run(
        "def test_urls(postgres_committing, postgres_clone, postgres_empty):\n"
        "    assert len({postgres_committing, postgres_clone, postgres_empty}) == 3\n"
        '@pytest.mark.postgres("clone")\n'
        "def test_marked(postgres_engine, postgres_committing, postgres_clone):\n"
        "    assert postgres_engine.url.database in postgres_clone\n"
    )

    assert "2 passed" in told, told


def test_without_an_engine_sqlalchemy_is_not_imported(place: Place) -> None:
    conftest = CONFTEST.replace("from sqlalchemy import text\n", "")
    (place.path / "conftest.py").write_text(conftest, encoding="utf-8")
    (place.path / "test_suite.py").write_text(
        "import sys\ndef test_it(postgres_committing, postgres_clone):\n    assert 'sqlalchemy' not in sys.modules\n",
        encoding="utf-8",
    )

    result = finished(python("-m", "pytest", "--postgres", place.url), cwd=place.path, **BARE)

    assert "1 passed" in result.stdout, result.stdout
