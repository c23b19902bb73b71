import threading
from collections.abc import Iterator

import psycopg
import pytest

from freshpg import Server, database_url, ensure_database, sqlalchemy_url
from freshpg.databases import (
    Databases,
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


def test_an_ordinary_role_waits_for_a_session_that_it_may_not_end(
    databases: Databases, embedded: Server
) -> None:
    """Autovacuum's workers are the superuser's: ending one by force is refused to others, and it ends by itself."""
    name = f"{databases.prefix}looked_into"
    databases.create(name)
    session = psycopg.connect(database_url(embedded.url, name))
    leaving = threading.Timer(1, session.close)
    leaving.start()
    try:
        databases.drop([name])
    finally:
        leaving.join()

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


def test_a_failed_preparation_is_told_without_the_password(databases: Databases) -> None:
    def fail(url: str) -> None:
        raise LookupError(f"nothing at {sqlalchemy_url(url)}")

    with pytest.raises(LookupError):
        databases.template(fail)
    with pytest.raises(TemplateUnavailable) as told:
        databases.template(fail)

    assert "://ordinary:***@" in str(told.value)


def test_ensuring_a_database_makes_it_once_and_leaves_it_then(ordinary: str, embedded: Server) -> None:
    name = 'it\'s "odd"/%'
    url = ensure_database(ordinary, name)
    query(url, "create table kept ()")

    assert ensure_database(ordinary, name) == url
    assert query(url, "select to_regclass('kept')::text") == [("kept",)]
    query(embedded.url, 'drop database "it\'s ""odd""/%"')
