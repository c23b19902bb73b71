"""The editor's files agree with the project: each task, debugger and port that they name is there, none is missing."""

import ast
import hashlib
import json
import re
import subprocess
import sys
from base64 import urlsafe_b64encode
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types

from backend.config import ROOT, Settings

SETTLE = str(ROOT / ".devcontainer" / "settle_times.py")
EDITOR = (ROOT / ".devcontainer", ROOT / ".vscode")
FILES = [path for folder in EDITOR for path in sorted(folder.glob("*.json"))]


def read(path: Path) -> Any:  # noqa: ANN401  JSON is of any shape
    """Read JSON whose comments stand on lines of their own."""
    lines = path.read_text().splitlines()
    return json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))


CONTAINER = read(ROOT / ".devcontainer" / "devcontainer.json")
TASKS = read(ROOT / ".vscode" / "tasks.json")
LAUNCH = read(ROOT / ".vscode" / "launch.json")
CONFIGURATIONS = {each["name"]: each for each in LAUNCH["configurations"]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_is_json_with_no_key_twice(path: Path) -> None:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len({key for key, _ in pairs}) == len(pairs), pairs
        return dict(pairs)

    lines = path.read_text().splitlines()
    json.loads(
        "\n".join(line for line in lines if not line.lstrip().startswith("//")), object_pairs_hook=once
    )


def test_every_nox_session_has_a_task_and_no_task_is_for_another() -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    sessions = {
        each.name for each in functions if any("session" in ast.unparse(mark) for mark in each.decorator_list)
    }

    assert {(task["label"], task["command"], *task["args"][:2]) for task in TASKS["tasks"]} == {
        (f"nox: {name}", "nox", "-s", name) for name in sessions
    }


@pytest.mark.parametrize("text", [TASKS, LAUNCH], ids=["tasks", "launch"])
def test_every_input_that_is_asked_for_is_described(text: dict[str, Any]) -> None:
    asked = set(re.findall(r"\$\{input:(\w+)\}", json.dumps(text)))

    assert asked == {each["id"] for each in text["inputs"]}


def test_debugger_runs_modules_that_exist() -> None:
    scripts = next(each["options"] for each in LAUNCH["inputs"] if each["id"] == "script")
    modules = {each["module"] for each in CONFIGURATIONS.values()}

    expected = {"backend.scripts.serve", "pytest", "backend.scripts.${input:script}"}
    assert modules == expected
    for name in {module for module in expected if "$" not in module} | {
        f"backend.scripts.{each}" for each in scripts
    }:
        assert find_spec(name), name
    assert {each["type"] for each in CONFIGURATIONS.values()} == {"debugpy"}
    assert find_spec("debugpy"), "which is the adapter of that type"


def test_container_extends_compose_and_works_where_its_image_does() -> None:
    image = (ROOT / "backend" / "Dockerfile").read_text()
    workspace = yaml.compose((ROOT / ".devcontainer" / "compose.yaml").read_text())

    for name in CONTAINER["dockerComposeFile"]:
        assert (ROOT / ".devcontainer" / name).is_file()
    keys = {
        key.value
        for section, value in workspace.value
        if section.value == "services"
        for key, _ in value.value
    }
    assert keys == {CONTAINER["service"]}
    assert f"WORKDIR {CONTAINER['workspaceFolder']}" in image
    assert (
        f"useradd --create-home --uid 1000 --user-group --shell /bin/bash {CONTAINER['remoteUser']}" in image
    )
    assert "features" not in CONTAINER


def test_editor_uses_the_containers_environment_and_the_locked_tools() -> None:
    inside = CONTAINER["customizations"]["vscode"]["settings"]
    both = read(ROOT / ".vscode" / "settings.json")

    assert inside["python.defaultInterpreterPath"] == "/opt/venv/bin/python"
    assert not set(inside) & set(both), "what the folder says wins over what the container says"
    for tool in ("ruff", "mypy-type-checker"):
        assert both[f"{tool}.importStrategy"] == "fromEnvironment"
    assert all((ROOT / path).exists() for path in both["python.testing.pytestArgs"])


def test_database_view_leads_to_composes_database() -> None:
    (view,) = CONTAINER["customizations"]["vscode"]["settings"]["sqltools.connections"]
    fields = Settings.model_fields

    assert f"{view['server']}:{view['port']}" in CONTAINER["forwardPorts"]
    assert view["database"] == fields["postgres_db"].default
    assert view["username"] == fields["postgres_user"].default
    assert fields["postgres_password"].default.get_secret_value() == view["password"]


def test_ports_that_are_forwarded_have_a_label() -> None:
    ports = {str(port) for port in CONTAINER["forwardPorts"]}

    assert {port for port, value in CONTAINER["portsAttributes"].items() if value["label"]} == ports


def test_extensions_are_the_same_inside_and_outside() -> None:
    outside = read(ROOT / ".vscode" / "extensions.json")["recommendations"]

    assert set(outside) - set(CONTAINER["customizations"]["vscode"]["extensions"]) == {
        "ms-vscode-remote.remote-containers"
    }


def test_commits_are_held_to_what_lint_runs_and_nothing_is_fetched_for_it() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]

    assert [each["repo"] for each in hooks] == ["local"]
    (hook,) = hooks[0]["hooks"]
    assert hook["entry"].endswith("exec nox -s lint'")
    assert (hook["language"], hook["pass_filenames"], hook["always_run"]) == ("system", False, True)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_time_of_an_installed_module_follows_from_its_content_by_any_hash(
    algorithm: str, tmp_path: Path
) -> None:
    """A record may hold any hash, and name what is gone; neither may stop the image from being built."""
    digests = [
        urlsafe_b64encode(hashlib.new(algorithm, content).digest()).decode().rstrip("=")
        for content in (b"1\n", b"2\n")
    ]
    names = ("one.py", "gone.py", "again.py", "other.py")
    lines = [f"{name},{algorithm}={digests[name == 'other.py']},2\n" for name in names]
    for name in {*names} - {"gone.py"}:
        (tmp_path / name).write_bytes(b"2\n" if name == "other.py" else b"1\n")
    record = tmp_path / "some-1.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("".join([*lines, "some-1.dist-info/RECORD,,\n"]), encoding="utf-8")
    settle = f"import runpy, sysconfig; sysconfig.get_path = lambda _: {str(tmp_path)!r}; runpy.run_path({SETTLE!r})"

    subprocess.run([sys.executable, "-c", settle], check=True)

    one, again, other = ((tmp_path / name).stat().st_mtime_ns for name in ("one.py", "again.py", "other.py"))
    assert one == again != other
    assert one % 1_000_000_000 == 0
