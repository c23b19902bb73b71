"""A checkout that the devcontainer command opens in its dev container, like an editor."""

import os
import shutil
import subprocess
from pathlib import Path

from .checkout import ROOT, Checkout, copy_checkout

CLI_VERSION = "0.89.0"
COMPOSE = ("docker", "compose", "-f", "compose.yaml", "-f", ".devcontainer/compose.yaml")


def devcontainer_cli() -> str:
    """Return the path of the devcontainer command; it is installed from the npm registry if it is missing."""
    place = ROOT / ".nox" / f"devcontainers-cli-{CLI_VERSION}"
    program = place / "node_modules" / ".bin" / "devcontainer"
    if not program.exists():
        assert shutil.which("npm"), "npm is needed for the dev containers' command: install Node.js"
        package = f"@devcontainers/cli@{CLI_VERSION}"
        subprocess.run(
            ["npm", "install", "--no-fund", "--no-audit", "--silent", "--prefix", place, package], check=True
        )
    return str(program)


class Workspace:
    """A checkout under Git, perhaps another user's, which can be opened, worked in and closed."""

    def __init__(self, path: Path, *, uid: int | None = None) -> None:
        self.checkout = Checkout(copy_checkout(path))
        self.path = path
        self.project = self.checkout.environment["COMPOSE_PROJECT_NAME"]
        # The container has no access to the engine, unless a test sets this.
        self.checkout.environment.pop("WORKSPACE_DOCKER_SOCKET", None)
        git = ("git", "-c", "user.name=e2e", "-c", "user.email=e2e@example.com")
        for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "All")):
            self.checkout.run(*git, *command)
        if uid is not None:
            for each in (path, *path.rglob("*")):
                os.chown(each, uid, uid, follow_symlinks=False)

    def up(self, *options: str) -> None:
        """Open the workspace."""
        self.checkout.run(devcontainer_cli(), "up", "--workspace-folder", ".", *options, seconds=1200)

    def run(self, *command: str) -> str:
        """Run a command inside the container, like a terminal of the editor."""
        return self.checkout.run(devcontainer_cli(), "exec", "--workspace-folder", ".", *command)

    def close(self) -> None:
        """Remove containers, volumes, networks and images, including untagged images from a rebuild."""
        down = ("down", "--volumes", "--rmi", "local", "--timeout", "5")
        self.checkout.run(*COMPOSE, *down, check=False)
        label = f"label=com.docker.compose.project={self.project}"
        if images := self.checkout.run("docker", "images", "--quiet", "--filter", label).split():
            self.checkout.run("docker", "rmi", "--force", *images, check=False)
