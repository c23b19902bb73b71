"""The reset on its own: a database like the template, something that a test does, and the database afterwards."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from freshpg import Server, ensure_database
from freshpg.reset import GRACE_SECONDS, LOCK_SECONDS, Reset

from .processes import query, wait_until

SCHEMA = """
    create table parent (id int generated always as identity primary key, name text not null);
    create table child (id serial primary key, parent int not null references parent deferrable);
    create table seeded (id int generated always as identity primary key, word text);
    insert into seeded (word) values ('one'), ('two');
    create table parted (id int, at date) partition by range (at);
    create table parted_2026 partition of parted for values from ('2026-01-01') to ('2027-01-01');
    create schema other; create unlogged table other."Odd name" (id int);
    create sequence loose start 100;
    create materialized view counted as select count(*) from parent;
    create type mood as enum ('fine');
    create function one() returns int language sql return 1;
    create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
    create trigger keep before delete on child for each row execute function refuse();
    create index on parent (name);
"""


@pytest.fixture(scope="module", params=["superuser", "ordinary role"])
def role_url(request: pytest.FixtureRequest, embedded: Server) -> Iterator[str]:
    if request.param == "superuser":
        yield embedded.url
        return
    query(embedded.url, "create role ordinary login createdb password 'ordinary'")
    yield f"postgresql://ordinary:ordinary@{embedded.url.partition('@')[2]}"
    query(embedded.url, "drop role ordinary")


@pytest.fixture
def empty_url(role_url: str, embedded: Server) -> Iterator[str]:
    name = f"reset_{time.monotonic_ns()}"
    yield ensure_database(role_url, name)
    # An ordinary role may not use FORCE while autovacuum works in the database.
    query(embedded.url, f"drop database {name} with (force)")


@pytest.fixture
def url(empty_url: str) -> str:
    query(empty_url, SCHEMA)
    return empty_url


@pytest.fixture
def reset(url: str) -> Iterator[Reset]:
    reset = Reset(url)
    yield reset
    reset.close()


CONTENTS = """
    select (select count(*) from parent), (select count(*) from child), (select count(*) from parted),
           (select count(*) from other."Odd name"), (select string_agg(word, ' ') from seeded),
           nextval('parent_id_seq'), nextval('child_id_seq'), nextval('seeded_id_seq'), nextval('loose')
"""
UNTOUCHED = [(0, 0, 0, 0, "one two", 1, 1, 3, 100)]

ROWS = [
    "insert into parent (name) values ('a'); insert into child (parent) values (1)",
    "insert into parted values (1, '2026-05-05'); insert into other.\"Odd name\" values (1)",
    "insert into parent (name) select 'long' from generate_series(1, 20000)",
    "select nextval('seeded_id_seq'), nextval('loose')",
    "select setval('parent_id_seq', 1000)",
    "begin; insert into parent (name) values ('rolled back'); rollback",
    "vacuum; analyze",
]


def test_rows_and_sequences_are_as_before(url: str, reset: Reset) -> None:
    for statement in ROWS:
        with psycopg.connect(url, autocommit=True) as connection:
            for part in statement.split("; "):
                connection.execute(part.encode())
        outcome = reset()

        assert (outcome.must_be_replaced, outcome.left_open) == (False, []), statement
        assert query(url, CONTENTS) == UNTOUCHED, statement


def test_value_that_a_refused_row_took_from_a_sequence_is_given_back(url: str, reset: Reset) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation):
        query(url, "insert into parent (name) values (null)")
    reset()

    assert query(url, CONTENTS) == UNTOUCHED


SCHEMA_CHANGES = [
    "create table more (id int)",
    "alter table parent add column extra int",
    "alter table parent rename column extra to further",
    "alter table parent alter column name type varchar",
    "alter table parent alter column name set default 'x'",
    "alter table parent alter column name drop not null",
    "alter table child drop constraint child_parent_fkey",
    "alter table child disable trigger keep",
    "drop trigger keep on child",
    "drop index parent_name_idx",
    "create view seen as select 1",
    "alter type mood add value 'tired'",
    "create domain positive as int check (value > 0)",
    "create or replace function one() returns int language sql return 2",
    "drop function one",
    "create schema more",
    "alter sequence loose increment 5",
    "create policy all_rows on parent",
    "alter default privileges grant select on tables to public",
    "comment on table parent is 'x'",
    "refresh materialized view counted",
    "create statistics pair on id, name from parent",
    "select lo_create(0)",
    "update seeded set word = 'changed' where id = 1",
    "insert into seeded (word) values ('three')",
    "delete from seeded where id = 1",
    "drop table child",
]


def test_change_of_the_schema_or_of_the_templates_rows_is_seen(url: str) -> None:
    unseen = []
    for statement in SCHEMA_CHANGES:
        reset = Reset(url)
        assert not reset().must_be_replaced
        query(url, statement)
        if not reset().must_be_replaced:
            unseen.append(statement)
        reset.close()

    assert unseen == []


def test_setting_of_the_database_is_seen(url: str, reset: Reset) -> None:
    query(url, f"alter database {psycopg.conninfo.conninfo_to_dict(url)['dbname']} set work_mem to '5MB'")

    assert reset().must_be_replaced


def test_change_that_was_rolled_back_is_none(url: str, reset: Reset) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("drop table child; create table more (id int)")
        connection.rollback()

    assert not reset().must_be_replaced


def test_open_transaction_is_named_and_ended_at_once(url: str, reset: Reset) -> None:
    connection = psycopg.connect(url)
    connection.execute("insert into parent (name) values ('a')")
    started = time.monotonic()
    outcome = reset()

    pid = connection.info.backend_pid
    statement = "insert into parent (name) values ('a')"
    assert outcome.left_open == [f"pid {pid} (idle in transaction), last statement: {statement}"]
    assert time.monotonic() - started < GRACE_SECONDS + 3
    assert query(url, CONTENTS) == UNTOUCHED
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")
    connection.close()


def sleep(url: str, connection: psycopg.Connection[object]) -> int:
    """Make the connection sleep; return its process once it does."""
    connection.pgconn.send_query(b"select pg_sleep(30)")
    pid = connection.info.backend_pid
    sleeps = f"select count(*) from pg_stat_activity where pid = {pid} and state = 'active'"
    wait_until(lambda: query(url, sleeps) == [(1,)], "the statement runs")
    return pid


def test_statement_that_still_runs_costs_a_second(url: str, reset: Reset) -> None:
    """It has no transaction number of its own, and holds a lock that the reset needs."""
    query(url, "insert into parent (name) values ('a')")
    connection = psycopg.connect(url)
    connection.execute("lock table parent in share mode")
    pid = sleep(url, connection)
    started = time.monotonic()
    outcome = reset()
    connection.close()

    assert outcome.left_open == [f"pid {pid} (active), last statement: select pg_sleep(30)"]
    assert time.monotonic() - started < LOCK_SECONDS + 3
    assert query(url, CONTENTS) == UNTOUCHED


def test_parallel_worker_of_a_statement_is_not_named_as_well(url: str, reset: Reset) -> None:
    query(url, "insert into parent (name) values ('a')")
    connection = psycopg.connect(url)
    name = "debug_parallel_query" if connection.info.server_version >= 160000 else "force_parallel_mode"
    connection.execute(f"set {name} to on".encode())
    connection.execute("lock table parent in share mode")
    pid = sleep(url, connection)
    outcome = reset()
    connection.close()

    assert outcome.left_open == [f"pid {pid} (active), last statement: select pg_sleep(30)"]


def test_connection_that_ends_its_transaction_in_time_is_no_leftover(
    url: str, reset: Reset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshpg.reset.GRACE_SECONDS", 10)
    connection = psycopg.connect(url)
    connection.execute("insert into parent (name) values ('a')")
    connection.pgconn.send_query(b"select pg_sleep(0.1); commit")

    assert reset().left_open == []
    assert query(url, CONTENTS) == UNTOUCHED
    connection.close()


def test_prepared_transaction_is_named_and_rolled_back(url: str, reset: Reset) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("begin; insert into parent (name) values ('a'); prepare transaction 'half'")

    assert reset().left_open == ["prepared transaction half"]
    assert query(url, CONTENTS) == UNTOUCHED


def test_end_of_the_resets_own_connection_makes_the_database_be_replaced(url: str, reset: Reset) -> None:
    query(
        url,
        "select pg_terminate_backend(pid, 1000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'",
    )

    assert reset().must_be_replaced


def reset_after(url: str, schema: str, row: str) -> bool:
    """Make a schema, insert a row and reset; return whether the database has to be replaced."""
    query(url, schema)
    reset = Reset(url)
    query(url, row)
    outcome = reset()
    reset.close()
    return outcome.must_be_replaced


def test_row_security_hides_no_rows_from_the_reset(empty_url: str) -> None:
    hidden = """
        create table t (id int);
        alter table t enable row level security;
        alter table t force row level security;
        create policy write on t for insert with check (true);
    """
    reset_after(empty_url, hidden, "insert into t values (1)")

    query(empty_url, "alter table t no force row level security")
    assert query(empty_url, "select count(*) from t") == [(0,)]


def test_rows_that_refer_to_the_templates_are_taken_with_care(empty_url: str) -> None:
    """A parent that is empty in the template, referred to by rows of it that refer to nothing yet."""
    filled = """
        create table p (id int primary key);
        create table c (id int, p int references p);
        insert into c values (1, null);
    """
    must_be_replaced = reset_after(empty_url, filled, "insert into p values (1)")

    contents = query(empty_url, "select (select count(*) from c), (select count(*) from p)")
    assert must_be_replaced or contents == [(1, 0)]


@pytest.mark.parametrize(
    "writes",
    [
        "create trigger note after delete on t execute function note(); alter table t enable always trigger note",
        "create trigger note after delete on t execute function note(); alter table t enable replica trigger note",
        "create trigger note after truncate on t execute function note(); alter table t enable always trigger note",
        "create rule note as on delete to t do also insert into audit select 1; alter table t enable always rule note",
    ],
)
def test_nothing_that_fires_during_the_reset_leaves_rows(empty_url: str, writes: str) -> None:
    audited = f"""
        create table audit (id int);
        create table t (id int);
        create function note() returns trigger language plpgsql
            as $$ begin insert into audit values (1); return null; end $$;
        {writes};
    """
    must_be_replaced = reset_after(empty_url, audited, "insert into t values (1)")

    contents = query(empty_url, "select (select count(*) from t), (select count(*) from audit)")
    assert must_be_replaced or contents == [(0, 0)]


def test_databases_of_the_server_are_reported(url: str, reset: Reset) -> None:
    databases = reset().databases
    assert psycopg.conninfo.conninfo_to_dict(url)["dbname"] in databases
    assert "template1" not in databases
