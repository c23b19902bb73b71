"""The editor's files match the project: each task, module and port in them exists."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from backend.config import ROOT, Settings

from .test_documentation import NAMES


def read(path: Path) -> Any:
    """Read JSON with comments on separate lines."""
    lines = path.read_text().splitlines()
    return json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))


CONTAINER = read(ROOT / ".devcontainer" / "devcontainer.json")
TASKS = read(ROOT / ".vscode" / "tasks.json")
LAUNCH = read(ROOT / ".vscode" / "launch.json")


def test_every_nox_session_has_a_task() -> None:
    assert {(task["label"], task["command"], *task["args"][:2]) for task in TASKS["tasks"]} == {
        (f"nox: {name}", "nox", "-s", name) for name in NAMES
    }


def test_every_input_that_is_asked_for_is_described() -> None:
    for text in (TASKS, LAUNCH):
        asked = set(re.findall(r"\$\{input:(\w+)\}", json.dumps(text)))
        assert asked == {each["id"] for each in text["inputs"]}


def test_debugger_runs_modules_that_exist() -> None:
    scripts = next(each["options"] for each in LAUNCH["inputs"] if each["id"] == "script")
    modules = {each["module"] for each in LAUNCH["configurations"]} - {"backend.scripts.${input:script}"}

    for name in modules | {f"backend.scripts.{each}" for each in scripts}:
        assert find_spec(name), name
    assert find_spec("debugpy")


def test_container_uses_the_workspace_and_user_of_its_image() -> None:
    image = (ROOT / "backend" / "Dockerfile").read_text()
    inside = CONTAINER["customizations"]["vscode"]["settings"]

    for name in CONTAINER["dockerComposeFile"]:
        assert (ROOT / ".devcontainer" / name).is_file()
    assert f"WORKDIR {CONTAINER['workspaceFolder']}" in image
    assert f"--shell /bin/bash {CONTAINER['remoteUser']}" in image
    assert inside["python.defaultInterpreterPath"] == "/opt/venv/bin/python"
    assert "features" not in CONTAINER


def test_database_view_leads_to_composes_database_and_asks_for_the_password() -> None:
    (view,) = CONTAINER["customizations"]["vscode"]["settings"]["sqltools.connections"]
    fields = Settings.model_fields

    assert f"{view['server']}:{view['port']}" in CONTAINER["forwardPorts"]
    assert (view["database"], view["username"]) == (
        fields["postgres_db"].default,
        fields["postgres_user"].default,
    )
    assert view["askForPassword"]
    assert "password" not in view


def test_pre_commit_hook_runs_lint_and_downloads_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]

    assert [each["repo"] for each in hooks] == ["local"]
    assert hooks[0]["hooks"][0]["entry"].endswith("exec nox -s lint'")
