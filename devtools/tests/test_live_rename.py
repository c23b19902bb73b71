"""The rename of a column from docs/migrations.md, while the code of two releases writes to the table."""

import re
import textwrap

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.exc import ProgrammingError

from backend.config import ROOT
from backend.migrations.drift import differences
from devtools.migrations.drafting import draft

from .model_changes import copied_models, take

FOLLOW, FILL = (
    textwrap.dedent(block)
    for block in re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "migrations.md").read_text(), re.DOTALL)
)
OLD, NEW = "password_hash", "password_digest"


def first_release() -> MetaData:
    models = copied_models()
    users = models.tables["users"]
    users.append_column(sa.Column(NEW, sa.Text))
    sa.event.listen(users, "after_create", sa.DDL(FOLLOW))  # type: ignore[no-untyped-call]  # SQLAlchemy's gap
    return models


def third_release() -> MetaData:
    models = copied_models()
    models.tables["users"].c[OLD].name = NEW
    return models


def release(engine: Engine, models: MetaData) -> str:
    """Draft the release's migration, run it like a start, and return it."""
    with engine.connect() as connection:
        drafted = draft(connection, models)
    assert drafted is not None
    assert drafted.missing == ()
    with engine.begin() as connection:
        take(connection, drafted.upgrade)
        assert differences(connection, models) == []
    return drafted.upgrade


def insert(connection: Connection, email: str, column: str, value: str | None) -> None:
    statement = f"INSERT INTO users (company_id, email, {column}) VALUES (1, :email, :value)"
    connection.execute(sa.text(statement), {"email": email, "value": value})


def update(connection: Connection, email: str, column: str, value: str | None) -> None:
    statement = f"UPDATE users SET {column} = :value WHERE email = :email"
    connection.execute(sa.text(statement), {"email": email, "value": value})


def passwords(connection: Connection, column: str) -> dict[str, str | None]:
    found = connection.execute(sa.text(f"SELECT email, {column} FROM users"))
    return {row[0]: row[1] for row in found}


@pytest.fixture
def live(engine: Engine) -> Engine:
    """Return an engine on a database with rows of the old release."""
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO companies (name) VALUES ('A')"))
        for name in ("before@x", "touched@x", "none@x"):
            insert(connection, name, OLD, None if name == "none@x" else f"of {name}")
    return engine


def test_no_write_of_either_release_is_lost_at_any_time(live: Engine) -> None:
    release(live, first_release())

    with live.begin() as connection:
        # This row is not filled yet, and another column of it changes.
        connection.execute(sa.text("UPDATE users SET role = 'admin' WHERE email = 'touched@x'"))
        insert(connection, "old@x", OLD, "by old code")
        insert(connection, "new@x", NEW, "by new code")
        insert(connection, "both@x", OLD, "first")
        update(connection, "both@x", NEW, "by new code")
        update(connection, "both@x", OLD, "by old code again")
        insert(connection, "gone@x", OLD, "to be taken away")
        update(connection, "gone@x", NEW, None)
    expected = {
        "before@x": "of before@x", "touched@x": "of touched@x", "none@x": None, "old@x": "by old code",
        "new@x": "by new code", "both@x": "by old code again", "gone@x": None,
    }  # fmt: skip
    with live.begin() as connection:
        assert passwords(connection, OLD) == expected
        assert passwords(connection, NEW) == expected | {"before@x": None}, "one row is not filled yet"
        assert connection.execute(sa.text(FILL)).rowcount == 1
        assert connection.execute(sa.text(FILL)).rowcount == 0
        assert passwords(connection, NEW) == expected

    upgrade = release(live, third_release())

    assert "op.execute('DROP TRIGGER follow_password ON users')" in upgrade
    assert "op.execute('DROP FUNCTION follow_password()')" in upgrade
    with live.begin() as connection:
        assert passwords(connection, NEW) == expected
        insert(connection, "after@x", NEW, "by new code")
    with live.begin() as connection, pytest.raises(ProgrammingError, match=OLD):
        passwords(connection, OLD)
