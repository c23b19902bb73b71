"""Every migration runs up, down and up again with rows in every table, and a failed one leaves nothing behind."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from backend import migrations
from backend.config import load_settings
from backend.database import SessionLocal, init_db
from backend.errors import UserError
from backend.migrations import catalog
from backend.migrations.drift import differences
from backend.models.models import Base
from backend.startup import database_errors_reported, start_database
from backend.tests import factories


def test_every_revision_goes_up_down_and_up_again_on_rows(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        staircase(connection)
        assert differences(connection) == []


def staircase(connection: Connection) -> None:
    """Upgrade step by step, then undo and repeat each migration from the top, with a row in every table at the head.

    If there are branches, undoing a migration also undoes the others that follow the same one.
    """
    newest_first = list(migrations.scripts().walk_revisions())
    schemas = {migrations.current(connection): catalog.read(connection)}
    for script in reversed(newest_first):
        migrations.upgrade(connection, script.revision)
        schemas[migrations.current(connection)] = catalog.read(connection)
    make_rows(connection)
    for script in newest_first:
        at, rows = str(migrations.current(connection)), count_rows(connection)
        if script.revision not in at.split(", "):
            continue
        below = script.down_revision or "base"
        below = below if isinstance(below, str) else below[0]
        migrations.downgrade(connection, below)
        schema = schemas[migrations.current(connection)]
        assert catalog.read(connection) == schema, f"{script} does not take back all that it did"
        assert kept(count_rows(connection), rows), f"{script} lost rows on its way down"
        rows = count_rows(connection)
        for revision in at.split(", "):
            migrations.upgrade(connection, revision)
        assert catalog.read(connection) == schemas[at], f"{script} does not do the same the second time"
        assert kept(count_rows(connection), rows), f"{script} lost rows on its way up"
        migrations.downgrade(connection, below)
    migrations.upgrade(connection)


def make_rows(connection: Connection) -> None:
    with SessionLocal(bind=connection) as session:
        user = factories.make_user(session)
        factories.make_user_settings(session, user_id=user.id)
        factories.make_procore_connection(session, company_id=user.company_id, connected_by_id=user.id)
        factories.make_job(session, company_id=user.company_id, created_by_id=user.id)
        factories.make_usage_log(session, company_id=user.company_id, user_id=user.id)
        session.commit()
    rows = count_rows(connection)
    assert all(rows[table] for table in Base.metadata.tables), (
        "add a factory for the new table, and call it here"
    )


def count_rows(connection: Connection) -> Counter[str]:
    tables = set(inspect(connection).get_table_names()) - {catalog.VERSION_TABLE}
    return Counter({name: connection.scalar(text(f'SELECT count(*) FROM "{name}"')) for name in tables})


def kept(now: Counter[str], before: Counter[str]) -> bool:
    """Whether every table that existed before still has its rows."""
    return all(now[table] == before[table] for table in now.keys() & before.keys())


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Copy the migrations, and give the path of one more file, which the test writes."""
    place = tmp_path / "migrations"
    source = Path(migrations.__file__).parent
    for path in (*source.glob("versions/[!_]*.py"), source / "env.py", source / "script.py.mako"):
        target = place / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    migrations.scripts.cache_clear()
    monkeypatch.setattr(migrations, "_PLACE", place)
    yield place / "versions" / "2030_01_01_one_more.py"
    migrations.scripts.cache_clear()


@pytest.fixture(autouse=True)
def _forget_the_files() -> Iterator[None]:
    """Forget the cached migrations after the test, so that the next test reads the real ones."""
    yield
    migrations.scripts.cache_clear()


def one_more(path: Path, *steps: str, revision: str = "one_more", below: object = None) -> None:
    body = "\n".join(f"    {step}" for step in steps or ("pass",))
    below = migrations.head() if below is None else below
    path.with_name(f"2030_01_01_{revision}.py").write_text(
        f'from alembic import op\n\nrevision: str = "{revision}"\ndown_revision: str | None = {below!r}\n\n\n'
        f"def upgrade() -> None:\n{body}\n\n\ndef downgrade() -> None:\n    pass\n"
    )
    migrations.scripts.cache_clear()


def branch(path: Path) -> None:
    """Add two revisions that follow the head."""
    root = migrations.head()
    for name in ("left", "right"):
        one_more(path, f'op.execute("CREATE TABLE of_{name} (id int)")', revision=name, below=root)
        file = path.with_name(f"2030_01_01_{name}.py")
        file.write_text(file.read_text().replace("    pass", f'    op.execute("DROP TABLE of_{name}")'))


def test_merged_branches_go_up_and_down_like_other_revisions(empty_engine: Engine, broken: Path) -> None:
    branch(broken)
    one_more(broken, revision="merged", below=("left", "right"))

    assert migrations.head() == "merged"
    with empty_engine.begin() as connection:
        staircase(connection)
        assert migrations.current(connection) == "merged"
        migrations.downgrade(connection, "left")
        assert migrations.current(connection) == "left, right"
    assert not init_db(empty_engine).is_usable
    with empty_engine.connect() as connection:
        assert migrations.current(connection) == "merged"


def test_two_heads_are_reported_in_one_line(engine: Engine, broken: Path) -> None:
    branch(broken)

    with pytest.raises(UserError) as caught:
        init_db(engine)
    assert str(caught.value) == (
        'The migrations end in 2 revisions, left and right: join them with `nox -s db_revision -- --merge -m "merge"`.'
    )


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ('revision = "a"\ndown_revision = "gone"', "Revision gone referenced from gone -> a "),
        ('revision = "a"\ndown_revision = ', "cannot be read: SyntaxError: invalid syntax .a.py, line 2"),
        ("from alembic import op", "cannot be read: .* 'a_py' has no attribute"),
        ('revision = "HEAD"\ndown_revision = None', " is present more than once"),
        (
            'revision = "a"\ndown_revision = "HEAD"\ndef upgrade(): {}["x"]',
            r"^The migrations cannot run: KeyError: 'x'\. It was raised in a\.py, line 3\.$",
        ),
    ],
)
def test_missing_or_invalid_file_is_reported_in_one_line(
    contents: str, words: str, engine: Engine, broken: Path
) -> None:
    (broken.parent / "a.py").write_text(contents.replace("HEAD", migrations.head()))
    migrations.scripts.cache_clear()

    with pytest.raises(UserError, match=words) as caught:
        init_db(engine)
    assert str(caught.value).count("\n") == 0


def test_migration_that_fails_half_way_leaves_the_database_as_it_was(engine: Engine, broken: Path) -> None:
    with engine.begin() as connection:
        make_rows(connection)
        before, rows = catalog.read(connection), count_rows(connection)
        revision = migrations.current(connection)
    one_more(
        broken,
        'op.execute("ALTER TABLE users ADD COLUMN nickname text")',
        'op.execute("DELETE FROM usage_logs")',
        'op.execute("SELECT 1 / 0")',
    )

    place = rf"division by zero\. It was raised in {broken.name}, line \d+\.$"
    with pytest.raises(UserError, match=place), database_errors_reported(engine):
        init_db(engine)

    with engine.connect() as connection:
        assert catalog.read(connection) == before
        assert count_rows(connection) == rows
        assert migrations.current(connection) == revision


def test_lock_that_is_not_granted_in_time_stops_the_migration_and_is_reported(
    engine: Engine, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody else queues behind a migration that waits for a lock on a table."""
    one_more(broken, 'op.execute("ALTER TABLE users ADD COLUMN nickname text")')
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.2)
    settings = load_settings(_env_file=None, database_url=engine.url.render_as_string(hide_password=False))
    with engine.begin() as holder:
        holder.execute(text("LOCK TABLE users IN ACCESS SHARE MODE"))
        with pytest.raises(OperationalError) as caught:
            init_db(engine)
        with pytest.raises(UserError) as refused:
            start_database(engine, settings)

    assert getattr(caught.value.orig, "sqlstate", None) == "55P03"
    assert "another connection holds a lock. It may be one of these:\n  pid " in str(refused.value)
    assert "column" not in {thing.kind for thing in columns_named(engine, "nickname")}


def columns_named(engine: Engine, name: str) -> list[catalog.Thing]:
    with engine.connect() as connection:
        return [thing for thing in catalog.read(connection) if thing.name == name]


def test_migration_waits_for_a_lock_no_longer_than_it_says(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        assert connection.scalar(text("SHOW lock_timeout")) == "0"
        migrations.upgrade(connection)
        assert connection.scalar(text("SHOW lock_timeout")) == f"{migrations.LOCK_SECONDS}s"
    with empty_engine.begin() as connection:
        assert connection.scalar(text("SHOW lock_timeout")) == "0", (
            "the limit is set for the transaction only"
        )


def test_lock_timeout_of_the_caller_is_kept(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '123ms'"))
        migrations.upgrade(connection)
        assert connection.scalar(text("SHOW lock_timeout")) == "123ms"


def test_migration_that_tries_to_leave_the_transaction_is_refused_with_an_alternative(
    engine: Engine, broken: Path
) -> None:
    one_more(broken, "with op.get_context().autocommit_block():", "    pass")

    with pytest.raises(UserError, match=r"by hand before the release: docs/migrations\.md"):
        init_db(engine)
    with engine.connect() as connection:
        assert differences(connection) == []
        assert migrations.current(connection) != "one_more"
