"""`db_revision` writes a file that is whole, where there is something to write, and touches no database of ours."""

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
from devtools.migrations import revise


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, in a place whose name asks for trouble, with models that have changed."""
    place = tmp_path / "a project: 100%"
    ignored = shutil.ignore_patterns("__pycache__", "tests", "e2e", "benchmarks", ".env")
    shutil.copytree(ROOT / "backend", place / "backend", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", place)
    models = place / "backend" / "models" / "models.py"
    columns = "    nickname: Mapped[str | None]\n    seen_at: Mapped[datetime | None]\n"
    before, marker, after = models.read_text().partition("    is_active: Mapped[bool]")
    guest = after.replace('ADMIN = "admin"', 'ADMIN = "admin"\n    GUEST = "guest"')
    models.write_text(
        before.replace('ADMIN = "admin"', 'ADMIN = "admin"\n    GUEST = "guest"') + columns + marker + guest
    )
    return place


def run(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project, env=os.environ | {"DOCKER_HOST": "unix:///nonexistent"} | environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def versions(project: Path) -> set[str]:
    return {path.name for path in (project / "backend" / "migrations" / "versions").glob("[!_]*.py")}


def test_change_of_the_models_becomes_a_file_that_brings_it_about(
    project: Path, empty_engine: Engine
) -> None:
    before = versions(project)
    began = datetime.now(UTC)
    mine = empty_engine.url.render_as_string(hide_password=False)

    done = run(project, "devtools.migrations.revise", "-m", "add nicknames.", DATABASE_URL=mine)

    assert done.returncode == 0, done.stderr
    [name] = versions(project) - before
    assert re.fullmatch(r"\d{4}_\d{2}_\d{2}_add_nicknames\.py", name)
    assert f"{began:%Y_%m_%d}" <= name[:10] <= f"{datetime.now(UTC):%Y_%m_%d}"
    assert done.stdout.startswith(f"Wrote backend/migrations/versions/{name}.\n")
    assert "2 of its steps can hurt on a live table: the comments say how not to." in done.stdout
    written = (project / "backend" / "migrations" / "versions" / name).read_text()
    assert written.startswith('"""Add nicknames."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n')
    assert f'down_revision = "{migrations.head()}"' in written
    assert "backend" not in written
    with empty_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) == 0
    # It is formatted and clean, and makes what the models say.
    assert run(project, "ruff", "format", "--check", f"backend/migrations/versions/{name}").returncode == 0
    checked = run(project, "ruff", "check", f"backend/migrations/versions/{name}")
    assert checked.returncode == 0, checked.stdout
    compared = run(project, "devtools.migrations.check", "--ephemeral")
    assert (compared.returncode, compared.stdout) == (0, "The migrations are as the models say.\n")
    again = run(project, "devtools.migrations.revise", "-m", "add them again")
    assert again.returncode == 1
    assert again.stderr.endswith("Nothing was written: the migrations already make what the models say.\n")
    assert versions(project) - before == {name}


def test_file_of_that_name_is_never_written_over(project: Path) -> None:
    assert run(project, "devtools.migrations.revise", "-m", "fill x", "--blank").returncode == 0
    [path] = (project / "backend" / "migrations" / "versions").glob("*_fill_x.py")
    path.write_text(path.read_text() + "# what I had written\n")

    again = run(project, "devtools.migrations.revise", "-m", "fill x", "--blank")

    assert again.returncode == 1
    assert again.stderr.endswith(f"Nothing was written: {path.name} is there already, so say it otherwise.\n")
    assert path.read_text().endswith("# what I had written\n")


def test_two_heads_are_told_before_anything_is_started(project: Path) -> None:
    place = project / "backend" / "migrations" / "versions"
    for name in "ab":
        (place / f"2027_01_01_{name}.py").write_text(
            f'revision = "{name}"\ndown_revision = "{migrations.head()}"\n'
        )

    done = run(project, "devtools.migrations.revise", "-m", "x")

    assert (done.returncode, done.stderr) == (
        1,
        "Nothing was written: the migrations must end in one revision, and end in ['a', 'b']: put one on the other.\n",
    )


@pytest.mark.parametrize("arguments", [[], ["-m", ""], ["-m", " . "]])
def test_message_is_asked_for(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        revise.main(arguments)

    assert str(caught.value) == (
        'Nothing was written: say what the migration does, nox -s db_revision -- -m "add x to y".'
    )


@pytest.mark.parametrize("message", ["!!!", 'end it """', "back\\slash"])
def test_message_that_makes_no_file_is_refused(message: str) -> None:
    with pytest.raises(SystemExit, match="needs a letter or a digit, and can hold neither"):
        revise.main(["-m", message])
