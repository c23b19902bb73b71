"""The doctor's own ground: a checkout of a few files, looked at by a Python that has no packages."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from devtools.doctor.checkout import Checkout

from .support import ROOT

DOOR = Path("backend", "devtools", "doctor")
FILES = (
    ".env.example",
    "compose.yaml",
    ".devcontainer/compose.yaml",
    "requirements/development.txt",
    "backend/__init__.py",
    "devtools/__init__.py",
    "devtools/children.py",
)
BARE_PYTHON = str(Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}"))


@dataclass
class Skeleton:
    """A checkout with no environment, and the variables by which it is looked at: no Docker, no home."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in FILES:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        shutil.copytree(ROOT / DOOR, self.root / DOOR, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "no home"),
            "DOCKER_HOST": "unix:///nonexistent",
        } | self.environment

    @property
    def checkout(self) -> Checkout:
        return Checkout(self.root, self.environment)

    def run(
        self, *arguments: str, python: str = BARE_PYTHON, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-I", "-S", "-B", str(self.root / DOOR), *arguments],
            cwd=self.root, env=self.environment | variables, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def ask(self, only: str = "*", **variables: str) -> list[dict[str, str]]:
        """Return what is found of this; its exit code has to fit."""
        done = self.run("--json", "--only", only, **variables)
        found: list[dict[str, str]] = json.loads(done.stdout)
        assert done.returncode == int(any(each["state"] == "wrong" for each in found)), done.stderr
        assert done.stderr == ""
        return found

    def findings(self, only: str, state: str, **variables: str) -> list[str]:
        return [each["finding"] for each in self.ask(only, **variables) if each["state"] == state]

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
