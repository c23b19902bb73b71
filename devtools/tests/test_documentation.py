"""The documentation is correct: it has every session and setting, and every link and command exists."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backend.config import ROOT, Settings

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "packages" / "freshpg").glob("*.md")),
]
SESSIONS = [
    node
    for node in ast.parse((ROOT / "noxfile.py").read_text()).body
    if isinstance(node, ast.FunctionDef)
    and any("session" in ast.unparse(mark) for mark in node.decorator_list)
]
NAMES = {node.name for node in SESSIONS}


def first_column(page: str) -> set[str]:
    """Read the first column of the tables of a page."""
    return set(re.findall(r"^\| `([^`]+)` \|", (ROOT / page).read_text(), re.MULTILINE))


def test_every_session_is_listed() -> None:
    assert first_column("docs/database.md") == {f"nox -s {name}" for name in NAMES} | {"docker compose up"}


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_session_has_one_line_in_the_list(session: ast.FunctionDef) -> None:
    lines = (ast.get_docstring(session) or "").splitlines()

    assert len(lines) == 1
    assert 20 < len(lines[0]) < 110


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sessions_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text()

    assert set(re.findall(r"nox -s (\w+)", text)) <= NAMES
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_at_most_120_characters(page: Path) -> None:
    assert [line for line in page.read_text().splitlines() if len(line) > 120] == []


def test_every_setting_is_documented_with_its_default() -> None:
    others = {"COMPOSE_PROJECT_NAME", "POSTGRES_PULL_SECONDS", "TEST_DATABASE_URL", "WORKSPACE_DOCKER_SOCKET"}
    text, fields = (ROOT / "docs" / "configuration.md").read_text(), Settings.model_fields

    assert first_column("docs/configuration.md") == {name.upper() for name in fields} | others
    for name in ("postgres_user", "postgres_db", "api_port", "db_port", "database_wait_seconds"):
        assert f"| `{name.upper()}` | `{fields[name].default}` |" in text


def test_compose_passes_every_setting_to_the_api() -> None:
    """Otherwise the API in the container would not see a setting, for example an exported API_TOKEN."""
    passed = set(re.findall(r"^      (\w+):", (ROOT / "compose.yaml").read_text(), re.MULTILINE))

    # The ports are the host's; with reload there is one worker.
    assert {name.upper() for name in Settings.model_fields} - passed == {
        "API_PORT",
        "DB_PORT",
        "WEB_CONCURRENCY",
    }


def test_picture_of_the_tables_is_that_of_the_models() -> None:
    """The lines are compared without their order, because the order of relations differs between runs."""
    command = [str(Path(sys.executable).with_name("paracelsus")), "graph", "backend.models.models:Base"]
    drawn = subprocess.run(
        [*command, "--column-sort", "preserve-order"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    page = (ROOT / "docs" / "database.md").read_text().partition("```mermaid\n")[2].partition("```")[0]

    assert sorted(page.split()) == sorted(drawn.stdout.split()), "run `nox -s diagram`"


def test_every_test_that_the_page_on_time_names_exists() -> None:
    page, file = (ROOT / "docs/time.md").read_text(), ""
    named = re.findall(r"`(test_\w+\.py)?::(test_\w+)`", page)
    for place, name in named:
        file = place or file
        (path,) = ROOT.glob(f"*/tests/{file}")
        assert f"def {name}(" in path.read_text(), f"{file}: {name}"

    assert len(named) > 24
