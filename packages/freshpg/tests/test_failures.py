"""What a failed test's report says of its database, and how `--keep-database` keeps it."""

import os
import re
import shlex
import signal
import time
from pathlib import Path

import pytest

from freshpg import Server
from freshpg.log import lines_since

from .inner import ALONE_OR_NOT, WORKERS, run_inside, section_of
from .support import data_directory, is_alive, postmaster, query, wait_until


def test_the_section_shows_the_database_its_statements_and_its_own_part_of_the_log(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        """
        def test_earlier(postgres_committing):
            with pytest.raises(psycopg.Error):
                run(postgres_committing, "select earlier")

        def test_it(postgres_clone, postgres_committing, use):
            use.statements.extend(["begin", "select 1", "select  1", "select 1", "rollback"])
            with pytest.raises(psycopg.Error):
                run(postgres_clone, "select elsewhere")
            run(postgres_committing, "select here")
        """,
    )

    assert "1 failed, 1 passed" in result.stdout
    section = section_of(result.stdout, "test_it")
    assert re.match(
        r"psql postgresql://postgres:[\w-]+@127.0.0.1:\d+/test_\w+_clone\d+\nTier clone, ", section
    )
    clone, shared = section.split(" PostgreSQL ---")
    assert "elsewhere" in clone
    assert "here" not in clone.replace("elsewhere", "")
    assert 'ERROR:  column "here" does not exist' in shared
    assert "STATEMENT:  select here" in shared
    assert "earlier" not in section
    assert "elsewhere" not in shared
    assert "oldest first:\n  begin\n  select 1  (3 times)\n  rollback\n" in section


def test_the_locks_are_those_of_the_moment_of_the_failure(tmp_path: Path) -> None:
    """Before anything is torn down: the fixture that lets go of them has not run yet."""
    result = run_inside(
        tmp_path,
        """
        @pytest.fixture
        def holder(postgres_clone):
            connection = connect(postgres_clone)
            connection.autocommit = False
            connection.execute("lock table things in share mode")
            connection.execute("select pg_advisory_lock(7)")
            def wait():
                with pytest.raises(psycopg.Error):
                    run(postgres_clone, "set lock_timeout = '20s'", "insert into things default values")
            thread = threading.Thread(target=wait)
            thread.start()
            while not run(postgres_clone, "select 1 from pg_locks where not granted"):
                time.sleep(0.01)
            yield connection
            run(postgres_clone, "select pg_terminate_backend(pid) from pg_locks where not granted")
            thread.join()
            connection.close()

        def test_it(holder):
            assert 0
        """,
    )

    section = section_of(result.stdout, "test_it")
    holding = re.search(r"pid (\d+) \(idle in transaction\) (.*)", section)
    assert holding is not None, section
    assert "holds ShareLock on things" in holding[2]
    assert "holds ExclusiveLock on advisory 0, 7" in holding[2]
    assert re.search(
        rf"\(active, blocked by pid {holding[1]}\) waits for RowExclusiveLock on things", section
    )
    assert "last statement: insert into things default values" in section
    assert "1 failed" in result.stdout
    assert "error" not in result.stdout.splitlines()[-1]


def test_what_cannot_be_had_is_one_line_and_delays_the_failure_little(tmp_path: Path) -> None:
    """No new connection to any database gets past this lock, and another test's database is gone."""
    result = run_inside(
        tmp_path,
        """
        @pytest.fixture
        def locked(postgres_clone):
            times = []
            with connect(postgres_clone) as connection:
                connection.autocommit = False
                connection.execute("lock table pg_authid in access exclusive mode")
                yield times
                print("TOOK", time.monotonic() - times[0])
                connection.rollback()

        def test_locked(locked):
            locked.append(time.monotonic())
            assert 0

        def test_gone(postgres_empty, postgres_server):
            name = postgres_empty.rpartition("/")[2]
            run(postgres_server.url, f"drop database {name}")
            assert 0
        """,
        "-s",
    )

    assert "2 failed in" in result.stdout
    took = re.search(r"TOOK (\S+)$", result.stdout, re.MULTILINE)
    assert took is not None, result.stdout
    assert float(took[1]) < 5
    assert "Locks at the failure:\n  cannot be had: it did not answer in time\n" in section_of(
        result.stdout, "test_locked"
    )
    assert re.search(r"cannot be had: .* does not exist\n", section_of(result.stdout, "test_gone"))
    assert "INTERNALERROR" not in result.stdout


def test_the_section_is_bounded(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        """
        def test_it(postgres_clone, use):
            with connect(postgres_clone) as connection:
                for number in range(300):
                    use.statements.append(f"select {number}, '{'x' * 5000}'")
                    with pytest.raises(psycopg.Error):
                        connection.execute(f"select nothing{number}, '{'x' * 5000}'")
            assert 0
        """,
    )

    section = section_of(result.stdout, "test_it")
    assert "select nothing299" in section
    assert "select nothing200" not in section
    assert "  select 299, " in section
    assert "... 180 before these" in section
    assert len(section) < 25_000
    assert max(map(len, section.splitlines())) < 400


def test_sections_travel_from_workers_and_nothing_is_said_of_tests_that_pass_or_use_no_database(
    tmp_path: Path,
) -> None:
    result = run_inside(
        tmp_path,
        """
        def test_it(postgres_clone):
            assert 0

        @pytest.mark.xfail
        def test_expected(postgres_clone):
            assert 0

        def test_fine(postgres_clone):
            pass

        def test_other():
            assert 0
        """,
        *WORKERS,
        "-rA",
    )

    assert "2 failed, 1 passed, 1 xfailed" in result.stdout
    assert section_of(result.stdout, "test_it").startswith("psql postgresql://")
    assert result.stdout.count("psql ") == 1


def test_of_a_given_server_no_password_is_shown(tmp_path: Path, embedded: Server) -> None:
    query(embedded.url, "create role shy login createdb password 'h u/n''ter2'")
    where = embedded.url.partition("@")[2]
    result = run_inside(
        tmp_path,
        "def test_it(postgres_clone):\n    del postgres_clone\n    assert 0\n",
        postgres=f"postgresql://shy:h%20u%2Fn%27ter2@{where}",
    )
    query(embedded.url, "drop role shy")

    section = section_of(result.stdout, "test_it")
    command = shlex.split(section.splitlines()[0])
    assert command[0] == "psql"
    assert re.fullmatch(r"user=shy dbname=test_\w+ host=127.0.0.1 port=\d+", command[1])
    assert "ter2" not in result.stdout + result.stderr
    assert "not looked for on a server that was given" in section


@pytest.mark.parametrize("workers", ALONE_OR_NOT, ids=["alone", "workers"])
def test_a_kept_database_is_as_the_test_left_it_and_its_server_runs_until_it_is_told(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    result = run_inside(
        tmp_path,
        """
        def test_clone(postgres_clone):
            run(postgres_clone, "create table kept as select 42 as answer")
            assert 0

        def test_fine(postgres_clone):
            pass

        def test_empty(postgres_empty):
            run(postgres_empty, "create table kept as select 43 as answer")
            assert 0
        """,
        "--keep-database",
        *workers,
    )
    shown = re.findall(r"^psql (\S+)  # test_it.py::(\w+)$", result.stdout, re.MULTILINE)
    end = re.search(
        r"^The server runs on. To end it, and what it holds: kill (\d+)$", result.stdout, re.MULTILINE
    )
    assert end is not None, result.stdout
    keeper = int(end[1])

    try:
        answers = {test: query(url, "table kept") for url, test in shown}
        assert answers == {"test_clone": [(42,)], "test_empty": [(43,)]}
        data = data_directory(shown[0][0])
        server = postmaster(data)
        assert "Tier clone, kept.\n" in section_of(result.stdout, "test_clone")
        # Any other signal has the keeper look around, and it must not take the input's end for a word.
        os.kill(keeper, signal.SIGHUP)
        time.sleep(0.5)
        assert query(shown[0][0], "select 1") == [(1,)]
    finally:
        os.kill(keeper, signal.SIGTERM)
    wait_until(lambda: not is_alive(server), "the server is gone")
    wait_until(lambda: not data.parent.exists(), "the directory is gone")


def test_on_a_given_server_the_kept_database_stays_alone_and_is_marked(
    tmp_path: Path, embedded: Server
) -> None:
    before = query(embedded.url, "select datname from pg_database")
    result = run_inside(
        tmp_path,
        """
        def test_it(postgres_committing, postgres_clone, postgres_empty):
            run(postgres_committing, "insert into things default values")
            assert 0
        def test_fine(postgres_clone):
            pass
        """,
        "--keep-database",
        postgres=embedded.url,
    )
    kept = re.findall(r"^psql .*dbname=(\w+).*  # test_it.py::test_it$", result.stdout, re.MULTILINE)
    # A later run drops what killed runs left, and must not take these for that.
    later = run_inside(tmp_path, "def test_fine(postgres_clone): pass\n", postgres=embedded.url)
    marks = query(
        embedded.url,
        "select datname, shobj_description(oid, 'pg_database') from pg_database where datname like 'test%'",
    )
    shared = next(name for name in kept if "_kept" in name)
    things = query(embedded.url.rpartition("/")[0] + f"/{shared}", "select count(*) from things")
    for name in kept:
        query(embedded.url, f"drop database {name}")

    assert len(kept) == 3
    assert not [name for name in kept if name in later.stdout]
    assert sorted(marks) == sorted((name, "kept: test_it.py::test_it") for name in kept)
    assert things == [(1,)]
    assert "They stay until you drop them." in result.stdout
    assert query(embedded.url, "select datname from pg_database") == before


@pytest.mark.parametrize("tier", ["session", "committing"])
def test_kept_database_holds_what_the_test_saw_and_later_tests_have_another(
    tmp_path: Path, embedded: Server, tier: str
) -> None:
    result = run_inside(
        tmp_path,
        """
        from sqlalchemy import text

        pytestmark = pytest.mark.postgres("TIER")

        def test_it(postgres_engine):
            with postgres_engine.begin() as connection:
                connection.execute(text("insert into things default values"))
            with postgres_engine.connect() as connection:
                connection.execute(text("insert into things default values"))
                assert connection.scalar(text("select count(*) from things")) == 3

        @pytest.mark.parametrize("number", range(2))
        def test_later(postgres_engine, number):
            with postgres_engine.begin() as connection:
                connection.execute(text("insert into things default values"))
                assert connection.scalar(text("select count(*) from things")) == 1
        """.replace("TIER", tier),
        "--keep-database",
        postgres=embedded.url,
    )
    (kept,) = re.findall(r"^psql .*dbname=(\w+).*  # test_it.py::test_it$", result.stdout, re.MULTILINE)
    things = query(embedded.url.rpartition("/")[0] + f"/{kept}", "select count(*) from things")
    query(embedded.url, f"drop database {kept}")

    assert "1 failed, 2 passed" in result.stdout
    # The other row was rolled back as the failure left the block.
    assert things == [(1,)]


def test_where_nothing_failed_nothing_is_kept(tmp_path: Path) -> None:
    result = run_inside(tmp_path, "def test_it(postgres_clone): pass\n", "--keep-database")

    assert result.returncode == 0
    assert "kept" not in result.stdout


def test_a_tiers_own_way_to_keep_is_called_before_the_tear_down(tmp_path: Path) -> None:
    """The tier whose transaction is rolled back commits it there; where that fails it is told in the section."""
    result = run_inside(
        tmp_path,
        """
        order = []

        @pytest.fixture
        def session(postgres_clone, use):
            use.keep = lambda: order.append("kept") or "without its sequences"
            yield
            order.append("torn down")

        def test_it(session):
            assert 0

        @pytest.fixture
        def broken(postgres_clone, use):
            use.keep = lambda: 1 / 0

        def test_broken(broken):
            assert 0

        def test_order():
            assert order == ["kept", "torn down"]
        """,
        "--keep-database",
        postgres="embedded",
    )
    end = re.search(r"what it holds: kill (\d+)$", result.stdout, re.MULTILINE)
    assert end is not None
    os.kill(int(end[1]), signal.SIGTERM)

    assert "2 failed, 1 passed" in result.stdout
    assert "kept (without its sequences)." in section_of(result.stdout, "test_it")
    assert "kept (without what the test had not committed: division by zero)." in section_of(
        result.stdout, "test_broken"
    )


LOG = """\
2026-11-24 09:00:00.999 UTC [1] [mine] ERROR:  too early
2026-11-24 09:00:01.500 UTC [1] [mine] ERROR:  mine
\tand its second line
2026-11-24 09:00:01.600 UTC [2] [mine2] ERROR:  another's
\tand its second line
2026-11-24 09:00:01.700 UTC [3] LOG:  nobody's [mine] ERROR:  a trap
2026-11-24 09:00:01.800 UTC [4] [mine] STATEMENT:  select 1
"""


def test_a_databases_part_of_the_log_is_told_by_name_and_time() -> None:
    since = time.mktime(time.strptime("2026-11-24 09:00:01", "%Y-%m-%d %H:%M:%S")) - time.timezone

    assert lines_since(LOG, since + 0.01, "mine") == [
        "2026-11-24 09:00:01.500 UTC [1] [mine] ERROR:  mine",
        "\tand its second line",
        "2026-11-24 09:00:01.800 UTC [4] [mine] STATEMENT:  select 1",
    ]
