"""A checkout opened in its dev container, as an editor opens it: by the dev containers' own command."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .checkout import ROOT, Checkout, copy_checkout

CLI_VERSION = "0.89.0"
COMPOSE = ("docker", "compose", "-f", "compose.yaml", "-f", ".devcontainer/compose.yaml")


def devcontainer_cli() -> str:
    """Return the path of the dev containers' command, installed from the npm registry where it is not there yet."""
    place = ROOT / ".nox" / f"devcontainers-cli-{CLI_VERSION}"
    program = place / "node_modules" / ".bin" / "devcontainer"
    if not program.exists():
        assert shutil.which("npm"), "npm is needed for the dev containers' command: install Node.js"
        package = f"@devcontainers/cli@{CLI_VERSION}"
        subprocess.run(
            ["npm", "install", "--no-fund", "--no-audit", "--silent", "--prefix", place, package], check=True
        )
    return str(program)


def read_jsonc(path: Path) -> Any:  # noqa: ANN401  JSON is of any shape
    """Read JSON with comments on lines of their own, which is all that this project's files have of them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))


def take_out(lock: Path, *packages: str) -> None:
    """Change a lock as a developer does it: these packages are not in it any more, nor the lines that go with them."""
    kept, is_out = [], False
    for line in lock.read_text(encoding="utf-8").splitlines(keepends=True):
        if line[0].isalnum():
            is_out = line.partition("==")[0] in packages
        if not is_out:
            kept.append(line)
    lock.write_text("".join(kept), encoding="utf-8")


class Workspace:
    """A checkout, perhaps somebody else's, under Git, which can be opened, worked in and closed."""

    def __init__(self, path: Path, *, uid: int | None = None) -> None:
        self.checkout = Checkout(copy_checkout(path))
        self.path = path
        self.project = self.checkout.environment["COMPOSE_PROJECT_NAME"]
        # The engine of the shell that runs this is not handed in, unless a test asks for it.
        self.checkout.environment.pop("WORKSPACE_DOCKER_SOCKET", None)
        git = ("git", "-c", "user.name=e2e", "-c", "user.email=e2e@example.com")
        for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "All")):
            self.checkout.run(*git, *command)
        if uid is not None:
            for each in (path, *path.rglob("*")):
                os.chown(each, uid, uid, follow_symlinks=False)

    def up(self, *options: str) -> dict[str, Any]:
        """Open the workspace and return what the command says of it, its containerId among that."""
        command = (devcontainer_cli(), "up", "--workspace-folder", ".", *options)
        said = self.checkout.run(*command, seconds=1200)
        result: dict[str, Any] = json.loads(said.rstrip().splitlines()[-1])
        assert result["outcome"] == "success", said
        return result

    def run(self, *command: str, check: bool = True, seconds: float = 900) -> str:
        """Run a command inside, in the workspace and as its user, with the environment of a terminal there."""
        begin = (devcontainer_cli(), "exec", "--workspace-folder", ".")
        return self.checkout.run(*begin, *command, check=check, seconds=seconds)

    def compose(self, *arguments: str, check: bool = True) -> str:
        return self.checkout.run(*COMPOSE, *arguments, check=check)

    def container(self) -> str:
        return self.compose("ps", "--quiet", "workspace").strip()

    def close(self) -> str:
        """Remove what the workspace has of the engine, as the README says it."""
        return self.compose("down", "--volumes", "--rmi", "local")

    def clean(self) -> None:
        """Close it, and remove the images too that a rebuild has left without a name."""
        self.compose("down", "--volumes", "--rmi", "local", "--timeout", "5", check=False)
        if images := self.left().get("images"):
            self.checkout.run("docker", "rmi", "--force", *images, check=False)

    def left(self) -> dict[str, list[str]]:
        """Return what the engine still has of the project, by kind."""
        label = f"label=com.docker.compose.project={self.project}"
        commands = {
            "containers": ("ps", "--all", "--quiet", "--filter", label),
            "volumes": ("volume", "ls", "--quiet", "--filter", label),
            "networks": ("network", "ls", "--quiet", "--filter", label),
            "images": ("images", "--quiet", "--filter", label),
        }
        found = {kind: self.checkout.run("docker", *each).split() for kind, each in commands.items()}
        return {kind: names for kind, names in found.items() if names}
