"""What a test sends by its engine, whoever makes the cursor: it is told where the test fails, and stays with nobody."""

import sys

import pytest

from .test_tiers import Place
from .test_tiers import place as place  # noqa: PLC0414 (for pytest to find it here as well)

PINGING = """
@pytest.fixture(scope="session")
def postgres_connect():
    from sqlalchemy import create_engine
    return lambda url, **options: create_engine(url, pool_pre_ping=True, **options)
"""

SENDS = """
from psycopg import sql

@pytest.mark.postgres("TIER")
def test_it(postgres_engine):
    with postgres_engine.connect() as connection:
        connection.execute(text("select 1"))
        raw = connection.connection.driver_connection
        raw.cursor().executemany("select %s::int", [(2,), (3,)])
        raw.execute(sql.SQL("select {} from things").format(sql.Identifier("word")))
        with raw.cursor("named") as cursor:
            cursor.execute(b"select 4")
            cursor.fetchall()
        with raw.cursor().copy("copy things from stdin"):
            pass
        connection.commit()
        connection.execute(text("select 5"))
        connection.rollback()
    assert count(postgres_engine) == -1
"""


@pytest.mark.parametrize(
    "execute",
    [
        "connection.execute(text({statement!r}))",
        "connection.connection.cursor().execute({statement!r})",
        "connection.connection.cursor().execute(sql.SQL({statement!r}))",
        "connection.connection.cursor().execute({statement!r}.encode())",
    ],
    ids=["by SQLAlchemy", "by a cursor", "composed", "as bytes"],
)
def test_settings_and_temporary_tables_do_not_reach_the_next_test(place: Place, execute: str) -> None:
    zone, table = "set timezone = 'Asia/Kathmandu'", "create temp table mine ()"
    leaves = (
        "def test_{tier}{number}(postgres_engine):\n"
        "    with postgres_engine.begin() as connection:\n"
        "        assert connection.scalar(text('show timezone')) != 'Asia/Kathmandu'\n"
        f"        {execute.format(statement=zone)}\n"
        f"        {execute.format(statement=table)}\n"
    )
    marks = {tier: f'@pytest.mark.postgres("{tier}")\n' for tier in ("session", "committing")}
    told = place.run(
        "from psycopg import sql\n"
        + "".join(
            marks[tier] + leaves.format(tier=tier, number=number) for number in range(2) for tier in marks
        )
    )

    assert "4 passed" in told, told


@pytest.mark.parametrize(
    "statement",
    [
        "/* mine */ set timezone = 'Asia/Kathmandu'",
        "-- mine\nset timezone = 'Asia/Kathmandu'",
        "select 1; set timezone = 'Asia/Kathmandu'",
        "create or replace temp view mine as select 1",
        "declare mine cursor with hold for select 1",
    ],
)
def test_what_stays_with_a_connection_does_not_reach_the_next_test(place: Place, statement: str) -> None:
    told = place.run(
        'pytestmark = pytest.mark.postgres("committing")\n'
        "@pytest.mark.parametrize('number', range(2))\n"
        "def test_it(postgres_engine, number):\n"
        "    with postgres_engine.begin() as connection:\n"
        "        assert connection.scalar(text('show timezone')) != 'Asia/Kathmandu'\n"
        "        assert connection.scalar(text(\"select to_regclass('mine')\")) is None\n"
        "        assert connection.scalar(text('select count(*) from pg_cursors where is_holdable')) == 0\n"
        "        connection.execute(text(STATEMENT))\n".replace("STATEMENT", repr(statement))
    )

    assert "2 passed" in told, told


@pytest.mark.parametrize("tier", ["session", "committing", "clone"])
def test_failed_test_tells_its_statements_whoever_sent_them(place: Place, tier: str) -> None:
    told = place.run(SENDS.replace("TIER", tier), conftest=PINGING)

    said = told.partition("oldest first:\n")[2]
    assert [line.strip() for line in said.splitlines()][:10] == [
        "select 1",
        "select %s::int",
        'select "word" from things',
        'DECLARE "named" CURSOR FOR select 4',
        "copy things from stdin",
        "COMMIT",
        "select 5",
        "ROLLBACK",
        "select count(*) from things",
        "ROLLBACK",
    ], told


@pytest.mark.parametrize("tier", ["session", "committing", "clone"])
def test_commits_in_pipelines_and_by_psycopg_itself_are_told(place: Place, tier: str) -> None:
    told = place.run(
        f"@pytest.mark.postgres({tier!r})\n"
        "def test_it(postgres_engine):\n"
        "    with postgres_engine.connect() as connection:\n"
        "        raw = connection.connection.driver_connection\n"
        "        with raw.pipeline():\n"
        "            raw.execute('select 1')\n"
        "            raw.commit()\n"
        "            raw.execute('select 2')\n"
        "            raw.rollback()\n"
        "        with raw.transaction():\n"
        "            raw.execute('select 3')\n"
        "    assert not postgres_engine\n"
    )

    said = told.partition("oldest first:\n")[2]
    assert [line.strip() for line in said.splitlines()][:6] == [
        "select 1",
        "COMMIT",
        "select 2",
        "ROLLBACK",
        "select 3",
        "COMMIT",
    ], told


# Python has template strings from 3.14 on.
if sys.version_info >= (3, 14):

    @pytest.mark.parametrize("tier", ["session", "committing", "clone"])
    def test_template_strings_are_told_without_their_values(place: Place, tier: str) -> None:
        told = place.run(
            f"@pytest.mark.postgres({tier!r})\n"
            "def test_it(postgres_engine):\n"
            "    values = {'table': 'things', 'word': 'sec' + 'ret'}\n"
            "    with postgres_engine.connect() as connection:\n"
            "        raw = connection.connection.driver_connection\n"
            "        raw.execute(t\"select from {values['table']:i} where word = {values['word']}\")\n"
            "    assert not postgres_engine\n"
        )

        assert 'oldest first:\n  select from "things" where word = %s\n' in told, told
        assert "secret" not in told


@pytest.mark.parametrize("tier", ["session", "committing", "clone"])
def test_cursors_are_of_the_kind_that_the_engine_asks_for(place: Place, tier: str) -> None:
    told = place.run(
        f"@pytest.mark.postgres({tier!r})\n"
        "def test_it(postgres_engine):\n"
        "    with postgres_engine.connect() as connection:\n"
        "        cursor = connection.connection.cursor()\n"
        "        assert cursor.mogrify('select %s', [1]) == 'select 1'\n"
        "        assert cursor.execute('select %s', [2]).fetchone() == (2,)\n"
        "    assert not postgres_engine\n",
        conftest="@pytest.fixture(scope='session')\n"
        "def postgres_connect():\n"
        "    from sqlalchemy import create_engine\n"
        "    arguments = {'cursor_factory': psycopg.ClientCursor}\n"
        "    return lambda url, **options: create_engine(url, connect_args=arguments, **options)\n",
    )

    assert "assert not Engine" in told, told
    assert "oldest first:\n  select %s\n" in told, told
