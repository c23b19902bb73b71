"""The dev container, opened by the devcontainer command like an editor opens it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .workspace import Workspace

# A user whose uid is not the image's; only root can give files to another user.
SOMEBODY = 4321 if os.geteuid() == 0 else None


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Open a checkout of this user's, who may be root, with no engine inside."""
    workspace = Workspace(tmp_path_factory.mktemp("opened") / "a checkout")
    try:
        workspace.up()
        yield workspace
    finally:
        workspace.close()


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Workspace]:
    """Give a second checkout, another user's if possible, which is not opened yet."""
    workspace = Workspace(tmp_path / "another", uid=SOMEBODY)
    yield workspace
    workspace.close()


def test_opening_gives_a_schema_at_head_and_a_suite_that_passes_without_an_engine(opened: Workspace) -> None:
    current = opened.checkout.psql("SELECT version_num FROM alembic_version")
    versions = (opened.path / "backend" / "migrations" / "versions").glob("*.py")
    assert any(current in each.read_text() for each in versions), current

    said = opened.run("nox", "-s", "tests", "--", "-n", "2", "-k", "test_api")

    assert re.search(r"^PostgreSQL 18\.\d+, embedded", said, re.MULTILINE), said
    assert re.search(r"\d+ passed", said)
    assert "Creating" not in said, "the container's environment is used"


def test_files_made_inside_belong_to_the_owner_and_git_works(opened: Workspace) -> None:
    opened.run("bash", "-c", "echo made inside > made-inside && git add made-inside")
    identity = ("-c", "user.name=e2e", "-c", "user.email=e2e@example.com")
    opened.run("git", *identity, "commit", "-qm", "Made inside")

    owner = opened.path.stat()
    for each in opened.path.rglob("*"):
        found = each.lstat()
        assert (found.st_uid, found.st_gid) == (owner.st_uid, owner.st_gid), each


def test_commands_reach_composes_database(opened: Workspace) -> None:
    opened.checkout.psql("CREATE TABLE stray (id int)")

    said = opened.run("nox", "-s", "db_reset")

    assert "dropped table public.stray" in said
    asked = opened.run("nox", "-s", "db_shell", "--", "-Atc", "SELECT to_regclass('stray') IS NULL")
    assert "t" in asked.split("\n")


def test_env_file_counts_without_opening_the_container_again(opened: Workspace) -> None:
    (opened.path / ".env").write_text("DATABASE_POOL_SIZE='3'\n")
    shown = "from backend.config import settings; print(settings.database_pool_size)"

    assert opened.run("python", "-c", shown).split() == ["3"]


def test_history_outlives_the_container(opened: Workspace) -> None:
    opened.run("bash", "-ic", "history -s typed-before; history -a")

    opened.up("--remove-existing-container")

    assert "typed-before" in opened.run("bash", "-ic", "history -r; history")


def test_worktree_of_another_user_runs_next_to_the_first_on_the_host_s_engine(
    opened: Workspace, another: Workspace, tmp_path: Path
) -> None:
    """The repository of a worktree is not mounted, so git does not work inside; everything else does."""
    (another.path / ".git").rename(tmp_path / "repository")
    (another.path / ".git").write_text("gitdir: /not/mounted/.git/worktrees/another\n")
    socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    (another.path / ".env").write_text(f"WORKSPACE_DOCKER_SOCKET='{socket}'\n")

    another.up()

    another.run("touch", "made")
    assert (another.path / "made").stat().st_uid == another.path.stat().st_uid
    said = another.run("nox", "-s", "tests", "--", "-k", "test_api_companies")
    assert re.search(r"^PostgreSQL 18\S*, in Docker \(postgres:18\)", said, re.MULTILINE), said
    assert re.search(r"\d+ passed", said)
    opened.checkout.psql("CREATE TABLE only_here (id int)")
    another.run("nox", "-s", "db_reset")
    assert opened.checkout.psql("SELECT to_regclass('only_here')") == "only_here"


def test_clone_in_a_volume_belongs_to_its_user(another: Workspace) -> None:
    """Editors and Codespaces can keep the clone in a volume, where root has created the files."""
    volume = f"{another.project}-clone"
    copied = "cp --archive /outside/. /workspace && chown --recursive root:root /workspace"
    mounts = ("-v", f"{volume}:/workspace", "-v", f"{another.path}:/outside:ro")
    another.checkout.run("docker", "volume", "create", volume)
    try:
        image = ("--entrypoint", "bash", "postgres:18")
        another.checkout.run("docker", "run", "--rm", *mounts, *image, "-c", copied)

        another.up("--mount", f"type=volume,source={volume},target=/workspace,external=true")

        assert another.run("bash", "-c", "id -u; stat -c %U .").split() == ["1000", "dev"]
    finally:
        another.close()
        another.checkout.run("docker", "volume", "rm", "--force", volume)
