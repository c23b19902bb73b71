"""`db_revision` writes a complete migration if the models changed, and does not touch the developer's database."""

import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from backend import migrations
from backend.config import ROOT
from backend.errors import UserError
from backend.tests.support import run_python
from devtools.migrations import revise

COLUMNS = """
    kind: Mapped[str] = mapped_column(sqlalchemy.Enum("a", "it's", name="kind"), server_default="it's")
    price: Mapped[int] = mapped_column(Money(), server_default=text("0"))
    is_active: Mapped[bool]"""
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
    ignored = shutil.ignore_patterns("__pycache__", "tests", ".env")
    for part in ("backend", "devtools"):
        shutil.copytree(ROOT / part, place / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", place)
    change(place, "class Base(", MONEY)
    change(place, "\n    is_active: Mapped[bool]", COLUMNS)
    return place


def change(project: Path, before: str, after: str) -> None:
    models = project / "backend" / "models" / "models.py"
    models.write_text(models.read_text().replace(before, after, 1))


def run(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python(*arguments, cwd=project, DOCKER_HOST="unix:///nonexistent", **environment)


def revision(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(project, "-m", "devtools.migrations.revise", *arguments, **environment)


def check(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(project, "-m", "devtools.migrations.check", *arguments, **environment)


def versions(project: Path) -> set[Path]:
    return set((project / "backend" / "migrations" / "versions").glob("[!_]*.py"))


def test_change_of_the_models_becomes_a_migration(project: Path, empty_engine: Engine) -> None:
    before = versions(project)
    began = datetime.now(UTC)
    mine = empty_engine.url.render_as_string(hide_password=False)

    done = revision(project, "-m", "add kinds.", DATABASE_URL=mine)

    assert done.returncode == 0, done.stderr
    [path] = versions(project) - before
    assert re.fullmatch(r"\d{4}_\d{2}_\d{2}_add_kinds\.py", path.name)
    assert f"{began:%Y_%m_%d}" <= path.name[:10] <= f"{datetime.now(UTC):%Y_%m_%d}"
    assert done.stdout.startswith(f"Wrote backend/migrations/versions/{path.name}.\n")
    written = path.read_text()
    assert written.startswith('"""Add kinds."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n')
    assert f'down_revision = "{migrations.head()}"' in written
    with empty_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) == 0
    # The file is formatted and clean, and brings a database to the schema of the models.
    for command in (("format", "--check"), ("check",)):
        checked = run(project, "-m", "ruff", *command, str(path))
        assert checked.returncode == 0, checked.stdout
    assert run(project, "-m", "backend.scripts.init_db", DATABASE_URL=mine).returncode == 0
    compared = check(project, DATABASE_URL=mine)
    assert (compared.returncode, compared.stdout.count("with the models")) == (0, 2), compared.stdout
    again = revision(project, "-m", "add them again")
    assert again.returncode == 1
    assert again.stderr.endswith("Nothing was written: the migrations already match the models.\n")
    assert versions(project) - before == {path}


def write_migration(project: Path, name: str, parent: str) -> None:
    (project / "backend" / "migrations" / "versions" / f"{name}.py").write_text(
        f'revision = "{name}"\ndown_revision = "{parent}"\ndef upgrade(): pass\ndef downgrade(): pass\n'
    )


def test_existing_file_is_never_overwritten(project: Path) -> None:
    # The date in a name is that of UTC, and may change during the test.
    now = datetime.now(UTC)
    today, tomorrow = (f"{day:%Y_%m_%d}_fill_x" for day in (now, now + timedelta(days=1)))
    write_migration(project, today, migrations.head())
    write_migration(project, tomorrow, today)
    before = {path: path.read_bytes() for path in versions(project)}

    done = revision(project, "-m", "fill x", "--blank")

    assert done.returncode == 1
    assert re.search(r"Nothing was written: \w+_fill_x\.py already exists, so choose another", done.stderr)
    assert {path: path.read_bytes() for path in versions(project)} == before


def test_two_heads_are_refused_and_can_be_merged(project: Path) -> None:
    for name in "ab":
        write_migration(project, name, migrations.head())

    refused = revision(project, "-m", "x")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("The migrations end in 2 revisions, a and b: ")
    assert revision(project, "--merge", "-m", "merge a and b").returncode == 0
    # Variables that are meant for another server do not count.
    done = revision(project, "-m", "add kinds", PGSSLMODE="require")
    assert done.returncode == 0, done.stderr
    assert check(project, "--ephemeral", PGSSLMODE="require").returncode == 0


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('server_default="it\'s"', 'server_default=text("no_such()")', "function no_such() does not exist."),
        (
            "    cache_ok = True\n",
            "    cache_ok = True\n    def load_dialect_impl(self, dialect):\n        raise ValueError('no type')\n",
            "The models cannot be created: ValueError: no type",
        ),
    ],
    ids=("postgresql", "compiling"),
)
def test_error_in_the_models_is_reported_in_one_line(
    before: str, after: str, words: str, project: Path
) -> None:
    change(project, before, after)

    for done in (revision(project, "-m", "x"), check(project, "--ephemeral")):
        assert done.returncode == 1
        assert words in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("message", ["", " . ", "!!!", 'end it """'])
def test_message_that_cannot_name_the_file_is_refused(message: str) -> None:
    with pytest.raises(UserError, match="say what the migration does, with a letter or a digit"):
        revise.main(["-m", message])
