"""The hook that a clone may install: a commit passes what `nox -s lint` runs, or is not made."""

import sys
from pathlib import Path

import pytest

from .workspace import Workspace


@pytest.fixture
def clone(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "a clone")


def test_commit_is_made_if_lint_passes_and_refused_if_not(clone: Workspace) -> None:
    run = clone.checkout.run
    commit = (
        "git",
        "-c",
        "user.name=e2e",
        "-c",
        "user.email=e2e@example.com",
        "commit",
        "--all",
        "-m",
        "More",
    )
    run(sys.executable, "-m", "pre_commit", "install")
    config = clone.path / "backend" / "config.py"
    text = config.read_text()

    config.write_text(text + "\n\nimport this\n")
    refused = run(*commit, check=False)
    assert "F401" in refused
    assert run("git", "log", "--format=%s", "-1").strip() == "All"

    config.write_text(text + "\n\nNOTHING = None\n")
    run(*commit)
    assert run("git", "log", "--format=%s", "-1").strip() == "More"
