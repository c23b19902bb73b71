"""`db_revision` writes a complete migration if the models changed, and does not touch the developer's database."""

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from backend import migrations
from backend.config import ROOT
from backend.errors import UserError
from devtools.migrations import revise

MODELS = """
    nickname: Mapped[str | None]
    seen_at: Mapped[datetime | None]
    kind: Mapped[str] = mapped_column(sqlalchemy.Enum("a", "it's", name="kind"), server_default="it's")
    price: Mapped[int] = mapped_column(Money(), server_default=text("0"))
    data: Mapped[int] = mapped_column(sqlalchemy.JSON, server_default="{}")
"""
MORE = """

class Event(Base):
    __tablename__ = "events"
    __table_args__ = {"schema": "audit"}
    id: Mapped[PrimaryKey]
    company_id: Mapped[int] = mapped_column(ForeignKey("companies.id"), index=True)


class Company(Base):"""
MONEY = """
import sqlalchemy


class Money(sqlalchemy.types.TypeDecorator[int]):
    impl = sqlalchemy.Numeric(12, 2)
    cache_ok = True


class Base("""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the project to a directory with an unusual name, and change the models."""
    place = tmp_path / "a project: 100%"
    ignored = shutil.ignore_patterns("__pycache__", "tests", "e2e", "benchmarks", ".env")
    for part in ("backend", "devtools"):
        shutil.copytree(ROOT / part, place / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", place)
    models = place / "backend" / "models" / "models.py"
    before, marker, after = models.read_text().partition("    is_active: Mapped[bool]")
    changed = (
        before.replace('ADMIN = "admin"', 'ADMIN = "admin"\n    GUEST = "guest"') + MODELS + marker + after
    )
    models.write_text(changed.replace("class Base(", MONEY, 1).replace("\nclass Company(Base):", MORE, 1))
    return place


def run(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project, env=os.environ | {"DOCKER_HOST": "unix:///nonexistent"} | environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def versions(project: Path) -> set[str]:
    return {path.name for path in (project / "backend" / "migrations" / "versions").glob("[!_]*.py")}


def test_change_of_the_models_becomes_a_migration(project: Path, empty_engine: Engine) -> None:
    before = versions(project)
    began = datetime.now(UTC)
    mine = empty_engine.url.render_as_string(hide_password=False)

    done = run(project, "devtools.migrations.revise", "-m", "add nicknames.", DATABASE_URL=mine)

    assert done.returncode == 0, done.stderr
    [name] = versions(project) - before
    assert re.fullmatch(r"\d{4}_\d{2}_\d{2}_add_nicknames\.py", name)
    assert f"{began:%Y_%m_%d}" <= name[:10] <= f"{datetime.now(UTC):%Y_%m_%d}"
    assert done.stdout.startswith(f"Wrote backend/migrations/versions/{name}.\n")
    written = (project / "backend" / "migrations" / "versions" / name).read_text()
    assert written.startswith('"""Add nicknames."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n')
    assert f'down_revision = "{migrations.head()}"' in written
    assert "backend" not in written
    with empty_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) == 0
    # The file is formatted and clean, brings a database to the schema of the models, and can be downgraded.
    assert run(project, "ruff", "format", "--check", f"backend/migrations/versions/{name}").returncode == 0
    checked = run(project, "ruff", "check", f"backend/migrations/versions/{name}")
    assert checked.returncode == 0, checked.stdout
    code = "from backend.database import connect; from backend import migrations as m"
    for steps in (
        "m.upgrade(c)",
        "m.downgrade(c, '-1'); m.upgrade(c)",
        "m.downgrade(c, 'base'); m.upgrade(c)",
    ):
        here = f"{code}\nwith connect({mine!r}).begin() as c: {steps}"
        moved = subprocess.run(
            [sys.executable, "-c", here], cwd=project, capture_output=True, text=True, check=False
        )
        assert moved.returncode == 0, moved.stderr
    compared = run(project, "devtools.migrations.check", DATABASE_URL=mine)
    assert (compared.returncode, compared.stdout.count("with the models")) == (0, 2), compared.stdout
    again = run(project, "devtools.migrations.revise", "-m", "add them again")
    assert again.returncode == 1
    assert again.stderr.endswith("Nothing was written: the migrations already match the models.\n")
    assert versions(project) - before == {name}


def test_existing_file_is_never_overwritten(project: Path) -> None:
    assert run(project, "devtools.migrations.revise", "-m", "fill x", "--blank").returncode == 0
    [path] = (project / "backend" / "migrations" / "versions").glob("*_fill_x.py")
    path.write_text(path.read_text() + "# what I had written\n")

    again = run(project, "devtools.migrations.revise", "-m", "fill x", "--blank")

    assert again.returncode == 1
    assert again.stderr.endswith(
        f"Nothing was written: {path.name} already exists, so choose another message.\n"
    )
    assert path.read_text().endswith("# what I had written\n")


def test_two_heads_are_reported_in_one_line_and_can_be_merged(project: Path) -> None:
    place = project / "backend" / "migrations" / "versions"
    for name in "ab":
        (place / f"2027_01_01_{name}.py").write_text(
            f'revision = "{name}"\ndown_revision = "{migrations.head()}"\n'
            "def upgrade(): pass\ndef downgrade(): pass\n"
        )

    for command in (("revise", "-m", "x"), ("check", "--ephemeral")):
        done = run(project, f"devtools.migrations.{command[0]}", *command[1:])
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            'The migrations end in 2 revisions, a and b: join them with `nox -s db_revision -- --merge -m "merge"`.\n'
        )
    assert run(project, "devtools.migrations.revise", "--merge", "-m", "merge a and b").returncode == 0
    [path] = place.glob("*_merge_a_and_b.py")
    assert 'down_revision = ("a", "b")' in path.read_text()
    done = run(project, "devtools.migrations.revise", "-m", "add nicknames")
    assert done.returncode == 0, done.stderr
    assert run(project, "devtools.migrations.check", "--ephemeral").returncode == 0


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('server_default="{}"', 'server_default=text("no_such()")', "function no_such() does not exist."),
        (
            "    cache_ok = True\n",
            "    cache_ok = True\n    def load_dialect_impl(self, dialect):\n        raise ValueError('no type')\n",
            "The models cannot be created: (in table 'companies', column 'price'): ValueError: no type",
        ),
        (
            "    id: Mapped[PrimaryKey]\n    company_id",
            "    company_id",
            "could not assemble any primary key",
        ),
    ],
    ids=("postgresql", "compiling", "importing"),
)
def test_error_in_the_models_is_reported_in_one_line(
    before: str, after: str, words: str, project: Path
) -> None:
    models = project / "backend" / "models" / "models.py"
    models.write_text(models.read_text().replace(before, after, 1))

    for command in (("revise", "-m", "x"), ("check", "--ephemeral")):
        done = run(project, f"devtools.migrations.{command[0]}", *command[1:])
        assert done.returncode == 1
        assert words in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["-m", ""], ["-m", " . "]])
def test_missing_message_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        revise.main(arguments)

    assert str(caught.value) == (
        'Nothing was written: say what the migration does, nox -s db_revision -- -m "add x to y".'
    )


@pytest.mark.parametrize("message", ["!!!", 'end it """', "back\\slash"])
def test_message_that_cannot_be_a_file_name_is_refused(message: str) -> None:
    with pytest.raises(UserError, match="needs a letter or a digit and can contain neither"):
        revise.main(["-m", message])
