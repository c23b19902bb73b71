import threading
from collections.abc import Iterator

import psycopg
import pytest

from backend.devtools.postgres import Server, database_url, ensure_database
from backend.devtools.postgres.databases import (
    Databases,
    Reset,
    TablesStayLocked,
    TemplateUnavailable,
    new_run_id,
)

from .support import query


@pytest.fixture
def ordinary(embedded: Server) -> Iterator[str]:
    """Return the administrative URL of a role that may create databases, and nothing else."""
    query(embedded.url, "create role ordinary login createdb password 'p@:/?#%'")
    yield embedded.url.replace(embedded.url.split("//")[1].split("@")[0], "ordinary:p%40%3A%2F%3F%23%25")
    query(embedded.url, "drop role ordinary")


@pytest.fixture
def databases(ordinary: str) -> Iterator[Databases]:
    made = Databases(ordinary, new_run_id())
    yield made
    assert made.drop_all() == []
    made.close()


def prepare(url: str) -> None:
    query(
        url,
        """
        create table parents (id bigint generated always as identity primary key);
        create table children (parent bigint not null references parents);
        create table alembic_version (version_num text);
        insert into alembic_version values ('head')
        """,
    )


def test_an_ordinary_role_makes_a_template_its_copies_and_drops_them_all(databases: Databases) -> None:
    template = databases.template(prepare)
    url = databases.create(f"{databases.prefix}copy", template)

    assert query(url, "table alembic_version") == [("head",)]
    assert databases.names() == sorted([template, f"{databases.prefix}copy"])

    assert databases.drop_all() == []
    assert databases.names() == []


def test_a_database_in_use_is_dropped_all_the_same(databases: Databases) -> None:
    url = databases.create(f"{databases.prefix}used")
    with psycopg.connect(url) as connection:
        connection.execute("select 1")
        assert databases.drop_all() == []
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


@pytest.mark.parametrize("name", ["postgres", "test_", "test_other_shared0", ""])
def test_what_another_made_is_neither_dropped_nor_copied_nor_named(databases: Databases, name: str) -> None:
    with pytest.raises(ValueError, match="not a database of this run"):
        databases.drop([name])
    with pytest.raises(ValueError, match="not a database of this run"):
        databases.create(f"{databases.prefix}copy", name)
    with pytest.raises(ValueError, match="not a database of this run"):
        databases.create(name)
    assert databases.names() == []


def test_a_prefix_is_taken_literally(databases: Databases, embedded: Server) -> None:
    """An underscore stands for any character in LIKE; a foreign database must not match by that."""
    foreign = databases.prefix.replace("_", "x") + "theirs"
    ensure_database(embedded.url, foreign)

    assert databases.drop_all() == []

    assert query(database_url(embedded.url, foreign), "select 1") == [(1,)]
    query(embedded.url, f'drop database "{foreign}"')


def test_processes_that_ask_together_prepare_the_template_once(databases: Databases) -> None:
    calls: list[str] = []
    together = threading.Barrier(3)
    others = [Databases(databases.url, databases.prefix.split("_")[1]) for _ in range(3)]

    def count_and_prepare(url: str) -> None:
        calls.append(url)
        prepare(url)

    def ask(each: Databases) -> None:
        together.wait(10)
        each.template(count_and_prepare)
        each.close()

    threads = [threading.Thread(target=ask, args=[each]) for each in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(calls) == 1
    assert databases.names() == [f"{databases.prefix}template"]


def test_a_preparation_that_fails_is_not_tried_again_in_the_whole_run(databases: Databases) -> None:
    calls: list[str] = []

    def fail(url: str) -> None:
        calls.append(url)
        query(url, "create table half_made ()")
        raise LookupError("it's\nnowhere")

    with pytest.raises(LookupError):
        databases.template(fail)

    another_process = Databases(databases.url, databases.prefix.split("_")[1])
    for each in (databases, another_process):
        with pytest.raises(
            TemplateUnavailable, match=r"^postgres_prepare failed: LookupError: it's nowhere$"
        ):
            each.template(fail)
    another_process.close()
    assert len(calls) == 1
    assert f"{databases.prefix}template" not in databases.names()


def test_a_preparation_that_leaves_connections_open_is_told_so_once(databases: Databases) -> None:
    held: list[psycopg.Connection] = []

    def leave_open(url: str) -> None:
        held.append(psycopg.connect(url))

    for _ in range(2):
        with pytest.raises(TemplateUnavailable, match=r"^postgres_prepare left connections open"):
            databases.template(leave_open)

    assert len(held) == 1
    held[0].close()


def test_a_run_that_was_killed_while_it_prepared_does_not_spoil_the_next_look(databases: Databases) -> None:
    query(databases.create(f"{databases.prefix}making"), "create table half_made ()")

    url = databases.create(f"{databases.prefix}copy", databases.template(prepare))

    assert query(url, "select to_regclass('half_made')") == [(None,)]


def test_reset_empties_and_restarts_all_tables_but_those_to_keep(databases: Databases) -> None:
    url = databases.create(f"{databases.prefix}copy", databases.template(prepare))
    reset = Reset(url, ("alembic_version",))
    for _ in range(2):
        query(url, "insert into parents default values; insert into children select id from parents")
        assert query(url, "select id from parents") == [(1,)]

        reset()

        assert query(url, "select from parents union all select from children") == []
        assert query(url, "table alembic_version") == [("head",)]
    reset.close()


def test_reset_quotes_names_and_reaches_every_schema(databases: Databases) -> None:
    url = databases.create(f"{databases.prefix}odd")
    query(url, """create schema "Odd ""one"; create table "Odd ""one"."a.b; drop" as select 1""")
    reset = Reset(url, ())

    reset()
    reset.close()

    assert query(url, """table "Odd ""one"."a.b; drop" """) == []


def test_a_forgotten_transaction_is_named_ended_and_does_not_spoil_the_next_reset(
    databases: Databases,
) -> None:
    url = databases.create(f"{databases.prefix}copy", databases.template(prepare))
    reset = Reset(url, (), lock_seconds=0.2)
    forgotten = psycopg.connect(url)
    forgotten.execute("insert into parents default values")
    pid = forgotten.info.backend_pid

    with pytest.raises(TablesStayLocked) as told:
        reset()

    assert f"pid {pid} (idle in transaction), last statement: insert into parents" in str(told.value)
    assert "0.2 s" in str(told.value)
    with pytest.raises(psycopg.OperationalError):
        forgotten.execute("select 1")
    forgotten.close()
    query(url, "insert into parents default values")
    reset()
    assert query(url, "table parents") == []
    reset.close()


def test_reset_survives_a_test_that_ends_every_connection(databases: Databases) -> None:
    url = databases.create(f"{databases.prefix}copy", databases.template(prepare))
    reset = Reset(url, ())
    query(url, "insert into parents default values")
    query(
        url, "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name ~ 'reset'"
    )

    reset()
    reset.close()

    assert query(url, "table parents") == []


def test_ensuring_a_database_makes_it_once_and_leaves_it_then(ordinary: str, embedded: Server) -> None:
    name = 'it\'s "odd"/%'
    url = ensure_database(ordinary, name)
    query(url, "create table kept ()")

    assert ensure_database(ordinary, name) == url
    assert query(url, "select to_regclass('kept')::text") == [("kept",)]
    query(embedded.url, 'drop database "it\'s ""odd""/%"')
