"""The end of a test with real commits: what it wrote is gone, what was there is back, what else changed is named."""

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from freshpg import Server
from freshpg.databases import Databases, new_run_id
from freshpg.reset import Found, Reset

from .support import query

SCHEMA = """
    create table parents (id bigint generated always as identity primary key, name text,
                          shouted text generated always as (upper(name)) stored);
    create table children (id serial primary key, parent bigint not null references parents on delete restrict);
    create table loops (id int primary key, other int references loops on delete restrict);
    create table lefts (id int primary key);
    create table rights (id int primary key references lefts);
    alter table lefts add foreign key (id) references rights deferrable initially deferred;
    create table parts (id int) partition by range (id);
    create table part_one partition of parts for values from (0) to (10);
    create unlogged table notes (body text);
    create schema "Odd ""one";
    create table "Odd ""one"."a.b; drop" (x int);
    create table kept (id int primary key, refused text);
    create function refuse() returns trigger language plpgsql as
        $$ begin raise exception 'no row of this table may go'; end $$;
    create trigger refuse before delete on kept for each row execute function refuse();
    create sequence counter start 7;
    create type mood as enum ('good');
    create view seen as select * from parents;
    create table alembic_version (version_num text);
    insert into alembic_version values ('head');
    insert into parents (name) values ('first'), ('second');
    insert into children (parent) values (1);
"""

DATA = """
    insert into parents (name) values ('third');
    insert into children (parent) select id from parents;
    insert into loops values (1, 1), (2, 1);
    insert into lefts values (1);
    insert into rights values (1);
    insert into parts values (1);
    insert into notes values ('x');
    insert into "Odd ""one"."a.b; drop" values (1);
    insert into kept values (1, 'x');
    select nextval('counter'), nextval('counter');
"""

CONTENT = """
    select (select array_agg(p::text order by id) from parents p),
           (select array_agg(c::text order by id) from children c),
           (select count(*) from loops) + (select count(*) from lefts) + (select count(*) from parts)
           + (select count(*) from notes)
           + (select count(*) from "Odd ""one"."a.b; drop") + (select count(*) from kept),
           (select (last_value, is_called)::text from counter), (select last_value from parents_id_seq),
           (select last_value from children_id_seq), (select version_num from alembic_version)
"""


@pytest.fixture(params=["superuser", "ordinary role"])
def url(request: pytest.FixtureRequest, embedded: Server) -> Iterator[str]:
    """Give the URL of a database with that schema, for a superuser and for a role that owns it and no more."""
    administrative = embedded.url
    if request.param != "superuser":
        query(embedded.url, "create role tester login createdb password 'tester'")
        administrative = embedded.url.replace(embedded.url.split("//")[1].split("@")[0], "tester:tester")
    databases = Databases(administrative, new_run_id())
    url = databases.create(f"{databases.prefix}reset")
    query(url, SCHEMA)
    yield url
    assert databases.drop_all() == []
    databases.close()
    if request.param != "superuser":
        query(embedded.url, "drop role tester")


@pytest.fixture
def reset(url: str) -> Iterator[Reset]:
    made = Reset(url, lock_seconds=10)
    yield made
    made.close()


@pytest.fixture
def hasty_reset(url: str) -> Iterator[Reset]:
    made = Reset(url, lock_seconds=0.2)
    yield made
    made.close()


def test_rows_seeds_and_sequences_are_as_before_however_often(url: str, reset: Reset) -> None:
    before = query(url, CONTENT)
    for _ in range(3):
        query(url, DATA)
        assert query(url, CONTENT) != before

        assert reset() == Found()

        assert query(url, CONTENT) == before


@pytest.mark.parametrize(
    "change",
    [
        "update parents set name = 'other' where id = 1",
        "delete from children",
        "truncate parents cascade",
        "update alembic_version set version_num = 'elsewhere'",
        "insert into alembic_version values ('second')",
        "select setval('counter', 50, false)",
        "alter sequence counter restart",
    ],
)
def test_what_the_template_had_is_restored(url: str, reset: Reset, change: str) -> None:
    before = query(url, CONTENT)
    query(url, change)

    assert reset().faults == []

    assert query(url, CONTENT) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("create table more ()", "table more was created"),
        ("drop table notes", "table notes was dropped"),
        ("drop table parts", "table parts was dropped"),
        ("alter table notes add column more text", "column more of table notes was created"),
        ("alter table notes alter column body set default 'x'", "default value for column body of table notes"),
        ("create index more on notes (body)", "index more was created"),
        ("alter table notes add constraint more check (body <> '')", "constraint more on table notes was created"),
        ("alter table kept disable trigger refuse", "trigger refuse on table kept was changed"),
        ("create or replace function refuse() returns trigger language plpgsql as $$ begin return old; end $$",
         "function refuse() was changed"),
        ("alter type mood add value 'bad'", "the values of type mood was"),
        ("create schema more", "schema more was created"),
        ("create or replace view seen as select *, 1 as one from parents", "column one of view seen was created"),
        ("alter table notes enable row level security", "table notes was changed"),
        ("create policy more on notes", "policy more on table notes was created"),
        ("grant select on notes to public", "table notes was changed"),
        ("comment on table notes is 'x'", "the comment on table notes was created"),
        ("alter sequence counter increment 2", "the parameters of sequence counter was changed"),
    ],
)  # fmt: skip
def test_what_changed_beside_rows_is_named(url: str, reset: Reset, change: str, told: str) -> None:
    query(url, change)

    found = reset()

    assert found.spoilt
    assert len(found.faults) == 1
    assert told in found.faults[0]
    assert found.faults[0].endswith('@pytest.mark.postgres("clone").')


@pytest.mark.parametrize("whose", ["database {name}", "role current_user in database {name}"])
def test_settings_of_the_database_and_of_roles_in_it_are_named(url: str, reset: Reset, whose: str) -> None:
    name = url.rpartition("/")[2]
    query(url, f"alter {whose.format(name=name)} set work_mem = '5MB'")

    found = reset()

    assert found.spoilt
    assert "the setting work_mem" in found.faults[0]


@pytest.mark.parametrize(
    "harmless",
    [
        "truncate notes",
        "vacuum full notes",
        "analyze",
        "create temp table t (id serial primary key)",
        "reindex table notes",
        "create table t (); drop table t",
    ],
)
def test_what_leaves_the_schema_as_it_was_is_no_fault(url: str, reset: Reset, harmless: str) -> None:
    query(url, harmless)

    assert reset() == Found()


def test_large_objects_are_gone(url: str, reset: Reset) -> None:
    query(url, "select lo_from_bytea(0, 'x')")

    assert reset() == Found()

    assert query(url, "select count(*) from pg_largeobject_metadata") == [(0,)]


def open_transaction(url: str) -> psycopg.Connection:
    connection = psycopg.connect(url)
    connection.execute("insert into parents (name) values ('forgotten')")
    return connection


def reading_transaction(url: str) -> psycopg.Connection:
    connection = psycopg.connect(url)
    connection.execute("select from parents")
    return connection


def session_lock(url: str) -> psycopg.Connection:
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("select pg_advisory_lock(1)")
    return connection


def table_lock(url: str) -> psycopg.Connection:
    connection = psycopg.connect(url)
    connection.execute("lock table parents, notes")
    return connection


@pytest.mark.parametrize("forget", [open_transaction, reading_transaction, session_lock, table_lock])
def test_what_a_connection_still_holds_is_named_and_ended(
    url: str, hasty_reset: Reset, forget: Callable[[str], psycopg.Connection]
) -> None:
    before = query(url, CONTENT)
    forgotten = forget(url)
    pid = forgotten.info.backend_pid

    found = hasty_reset()

    assert not found.spoilt
    assert f"pid {pid} (" in found.faults[0]
    assert "These connections were ended." in found.faults[0]
    with pytest.raises(psycopg.OperationalError):
        forgotten.execute("select 1")
    forgotten.close()
    assert query(url, CONTENT) == before
    assert hasty_reset() == Found()


def test_transaction_that_ends_by_itself_in_time_is_no_fault_and_its_rows_go(url: str, reset: Reset) -> None:
    before = query(url, CONTENT)
    with open_transaction(url) as connection:
        late = threading.Timer(0.05, connection.commit)
        late.start()

        assert reset() == Found()
        late.join()

    assert query(url, CONTENT) == before


def test_survives_a_test_that_ends_every_connection(url: str, reset: Reset) -> None:
    before = query(url, CONTENT)
    query(url, DATA)
    query(
        url,
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name ~ 'reset between'",
    )

    assert reset() == Found()

    assert query(url, CONTENT) == before


def test_dead_rows_do_not_pile_up(url: str, reset: Reset) -> None:
    """Every scan would pay for them, the reset's own first, and the planner would count their pages."""
    for _ in range(3):
        query(url, "insert into notes select repeat('x', 900) from generate_series(1, 400)")
        assert reset() == Found()

        assert query(url, "select pg_relation_size('notes')") == [(0,)]
