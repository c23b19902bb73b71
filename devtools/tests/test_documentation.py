"""What people read is true: the README names every session and setting, and nothing that is not there."""

import ast
import re

import pytest

from backend.config import ROOT, Settings

README = (ROOT / "README.md").read_text()
SESSIONS = [
    node.name
    for node in ast.parse((ROOT / "noxfile.py").read_text()).body
    if isinstance(node, ast.FunctionDef)
    and any("session" in ast.unparse(mark) for mark in node.decorator_list)
]


def rows(heading: str) -> set[str]:
    """Read the first column of the table below a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def test_readme_lists_every_session_and_no_other() -> None:
    assert rows("Commands") == {f"nox -s {name}" for name in SESSIONS} | {"docker compose up"}


@pytest.mark.parametrize("name", SESSIONS)
def test_session_has_a_line_in_the_list(name: str) -> None:
    function = next(
        node
        for node in ast.parse((ROOT / "noxfile.py").read_text()).body
        if getattr(node, "name", "") == name
    )
    assert isinstance(function, ast.FunctionDef)

    lines = (ast.get_docstring(function) or "").splitlines()

    assert len(lines) == 1
    assert 20 < len(lines[0]) < 100


def test_readme_lists_every_setting() -> None:
    of_others = {
        "COMPOSE_PROJECT_NAME",
        "POSTGRES_PULL_SECONDS",
        "TEST_DATABASE_URL",
        "WORKSPACE_DOCKER_SOCKET",
    }

    assert rows("Settings") == {name.upper() for name in Settings.model_fields} | of_others


def test_readme_gives_the_defaults_as_they_are() -> None:
    fields = Settings.model_fields

    for name in ("postgres_user", "postgres_db", "api_port", "db_port", "database_wait_seconds"):
        assert f"| `{name.upper()}` | `{fields[name].default}` |" in README


def test_every_place_that_the_readme_names_is_there() -> None:
    section = README.split("\n## What is where\n")[1].split("\n## ")[0]
    first_column = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]

    for name in (name for cell in first_column for name in re.findall(r"`([^`]+)`", cell)):
        assert (ROOT / name).exists() or (ROOT / "backend" / name).exists(), name


def test_links_within_the_project_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / link).exists(), f"{page}: {link}"


def test_compose_hands_every_setting_to_the_api() -> None:
    """What it does not name, the API would not see: an exported API_TOKEN among them."""
    compose = (ROOT / "compose.yaml").read_text()
    handed = {*re.findall(r"^      (\w+):", compose, re.MULTILINE)}

    assert {name.upper() for name in Settings.model_fields} - handed == {"API_PORT", "DB_PORT"}, (
        "which the host has"
    )


def test_every_test_that_the_page_on_time_names_exists() -> None:
    page, file = (ROOT / "docs/time.md").read_text(), ""
    named = re.findall(r"`(test_\w+\.py)?::(test_\w+)`", page)
    for place, name in named:
        file = place or file
        (path,) = ROOT.glob(f"*/tests/{file}")
        assert f"def {name}(" in path.read_text(), f"{file}: {name}"

    assert len(named) > 24
