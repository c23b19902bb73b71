"""The dev container, opened by the dev containers' own command as an editor opens it."""

import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .checkout import wait_until
from .debugger import Debugger
from .workspace import Workspace, read_jsonc, take_out

# Somebody whose uid is not the image's; only root can hand a checkout to somebody.
SOMEBODY = 4321 if os.geteuid() == 0 else None
ONE_TEST = "test_defaults_are_composes_database_on_loopback"
OF_A_FILE = "test_every_reference_leads_somewhere"
# The whole suite takes a minute or two: the second way of running it runs what touches the database most.
SOME_TESTS = ("-k", "constraints or database or ladder")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Open a checkout of this user's, who may be root, with no engine inside."""
    workspace = Workspace(tmp_path_factory.mktemp("opened") / "a checkout")
    try:
        workspace.up()
        yield workspace
    finally:
        workspace.clean()


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Workspace]:
    """Give a second checkout, which belongs to somebody else where that can be, and is not opened yet."""
    workspace = Workspace(tmp_path / "another", uid=SOMEBODY)
    yield workspace
    workspace.clean()


def test_opening_leaves_the_schema_at_head_and_a_suite_that_passes_without_an_engine(
    opened: Workspace,
) -> None:
    """Nothing is typed but the command: environment, database and schema are there."""
    current = opened.checkout.psql("SELECT version_num FROM alembic_version")
    versions = (opened.path / "backend" / "migrations" / "versions").glob("*.py")
    assert any(f'revision = "{current}"' in each.read_text() for each in versions), current

    opened.run("nox", "-s", "lint")
    # The plugin's own tests are as long as all others together, and start servers of their own wherever they run.
    said = opened.run(
        "nox", "-s", "tests", "--", "-n", "2", "--ignore=packages/freshpg/tests", "-k", "not utc"
    )

    assert re.search(r"^PostgreSQL 18\.\d+, embedded .*because Docker does not answer", said, re.MULTILINE), (
        said
    )
    assert re.search(r"\d+ passed", said)
    assert not re.search(r"\d+ (failed|error)", said)
    assert " MB in memory at the end" in said
    # A container's root may not mount a file system, and a test that fills one up says so.
    skipped = re.findall(r"^SKIPPED.*$", said, re.MULTILINE)
    assert all(each.endswith("no file system can be mounted here") for each in skipped), skipped


def test_nothing_that_a_tool_keeps_is_beside_the_code_and_what_is_made_there_belongs_to_its_owner(
    opened: Workspace,
) -> None:
    """Runs after the suite, lint and nox were at work inside; the commit has Git write below `.git` too.

    Bytecode alone is beside the code where a test runs a Python that minds no environment; it names its own version.
    """
    opened.run("mypy", "backend/errors.py")
    opened.run("nox", "-s", "venv")
    opened.run("bash", "-c", "echo made inside > made-inside && git add made-inside")
    opened.run(
        "git", "-c", "user.name=e2e", "-c", "user.email=e2e@example.com", "commit", "-qm", "Made inside"
    )

    made = opened.checkout.run("git", "status", "--porcelain", "--ignored").splitlines()
    assert [each for each in made if not each.endswith("__pycache__/")] == []
    owner = opened.path.stat()
    for each in opened.path.rglob("*"):
        found = each.lstat()
        assert (found.st_uid, found.st_gid) == (owner.st_uid, owner.st_gid), each


def test_git_has_nothing_to_say_of_ownership(opened: Workspace) -> None:
    assert opened.run("git", "log", "--format=%an", "-1").strip() == "e2e"
    assert opened.run("git", "config", "--system", "--get-all", "safe.directory").strip() == "/workspace"


def test_verbs_reach_composes_database(opened: Workspace) -> None:
    opened.checkout.psql("CREATE TABLE stray (id int)")

    said = opened.run("nox", "-s", "db_reset")

    assert "Database: db:5432/procore_integrator, the one configured." in said
    assert "dropped table public.stray" in said
    asked = opened.run(
        "nox", "-s", "db_shell", "--", "-Atc", "SELECT to_regclass('stray') IS NULL, count(*) FROM users"
    )
    assert "t|0" in asked.split("\n")


def substitute(configuration: Any, values: dict[str, str]) -> Any:  # noqa: ANN401  JSON is of any shape
    if isinstance(configuration, dict):
        return {key: substitute(value, values) for key, value in configuration.items()}
    if isinstance(configuration, list):
        return [substitute(value, values) for value in configuration]
    if isinstance(configuration, str):
        return re.sub(r"\$\{([^}]+)\}", lambda found: values[found[1]], configuration)
    return configuration


@pytest.mark.parametrize(
    ("name", "where", "inputs"),
    [
        ("API", ("live", "backend/routers/health.py", "return Alive()"), {}),
        (
            "One test",
            (ONE_TEST, "backend/tests/test_config.py", "assert settings.url.render"),
            {"input:test": ONE_TEST},
        ),
        ("Tests of this file", (OF_A_FILE, "backend/tests/test_openapi.py", "assert names"), {}),
        ("Script", ("main", "backend/scripts/init_db.py", "settings = load"), {"input:script": "init_db"}),
    ],
    ids=["the API", "one test", "a file", "a script"],
)
def test_debugger_stops_at_a_breakpoint(
    opened: Workspace, name: str, where: tuple[str, str, str], inputs: dict[str, str]
) -> None:
    """The launch configurations are those of `.vscode`, which the editor hands to the same adapter."""
    function, file, text = where
    inside = f"/workspace/{file}"
    lines = (opened.path / file).read_text().splitlines()
    line = next(number for number, each in enumerate(lines, 1) if text in each)
    configurations = read_jsonc(opened.path / ".vscode" / "launch.json")["configurations"]
    found = next(each for each in configurations if each["name"] == name)
    configuration = substitute(found, {"workspaceFolder": "/workspace", "file": inside, **inputs})
    python = read_jsonc(opened.path / ".devcontainer" / "devcontainer.json")["customizations"]["vscode"][
        "settings"
    ]["python.defaultInterpreterPath"]
    configuration |= {"console": "internalConsole", "python": [python]}
    execute = ("docker", "exec", "--interactive", "--user", "dev", opened.container())

    with Debugger([*execute, python, "-m", "debugpy.adapter"]) as debugger, ThreadPoolExecutor(1) as pool:
        debugger.launch(configuration, (inside, line))
        answer = pool.submit(ask_inside, execute) if name == "API" else None
        stopped = debugger.stopped_at()
        if answer is not None:
            assert answer.result() == '{"status":"ok"}'
            debugger.ask("disconnect", {"terminateDebuggee": True})
        else:
            assert debugger.wait_for_event("exited") == {"exitCode": 0}

    assert stopped == (function, inside, line)


def ask_inside(execute: tuple[str, ...]) -> str:
    """Ask the API inside, once it listens."""
    script = (
        "import time, urllib.error, urllib.request\n"
        "for _ in range(600):\n"
        "    try:\n"
        "        print(urllib.request.urlopen('http://127.0.0.1:8000/health/live').read().decode())\n"
        "        break\n"
        "    except urllib.error.URLError:\n"
        "        time.sleep(0.1)\n"
    )
    done = subprocess.run([*execute, "python", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_history_and_caches_outlive_the_container_and_the_host_s_environment_is_not_met(
    opened: Workspace,
) -> None:
    """The host's `.venv` would win by its name in an editor, and its programs would not even start here."""
    trap = opened.path / ".venv" / "bin"
    trap.mkdir(parents=True)
    for program in ("python", "nox", "ruff"):
        (trap / program).write_text("#!/bin/sh\nexit 42\n")
        (trap / program).chmod(0o755)
    opened.run("bash", "-ic", "history -s typed-before; history -a; echo kept > ~/.cache/kept")
    before = opened.container()
    lock = opened.path / "requirements" / "development.txt"
    locked = lock.read_text()
    take_out(lock, "pre-commit")

    opened.up("--remove-existing-container")

    assert opened.container() != before
    lock.write_text(locked)
    assert opened.run("bash", "-c", "ls /opt/venv/bin").split().count("pre-commit") == 0
    # Opening has imported most of it, and found compiled what another environment had compiled of it.
    compiled = "find ~/.cache/python/opt/venv -name '*.pyc' -path '*/sqlalchemy/*'"
    assert opened.run("bash", "-c", compiled).strip()
    assert not opened.run("bash", "-c", f"{compiled} -newer ~/.cache/kept").strip()
    assert "typed-before" in opened.run("bash", "-ic", "history -r; history")
    assert opened.run("bash", "-c", "cat ~/.cache/kept").strip() == "kept"
    assert opened.run("bash", "-lc", "command -v python nox ruff").split() == [
        f"/opt/venv/bin/{program}" for program in ("python", "nox", "ruff")
    ]
    assert "Session venv was successful" in opened.run("nox", "-s", "venv")
    assert sorted(each.name for each in (opened.path / ".venv").rglob("*")) == [
        "bin",
        "nox",
        "python",
        "ruff",
    ]


def test_second_checkout_with_the_host_s_engine_runs_beside_the_first_and_leaves_nothing(
    opened: Workspace, another: Workspace
) -> None:
    """Its owner is an ordinary user, and the engine is handed in: by `.env`, as a person does it."""
    socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    (another.path / ".env").write_text(f"WORKSPACE_DOCKER_SOCKET='{socket}'\n")

    another.up()

    user = another.run("bash", "-c", "id -un; id -u; stat -c %u . ~; touch made && stat -c %U made").split()
    owner = str(another.path.stat().st_uid)
    assert user[1:4] == [owner, owner, owner]
    assert SOMEBODY is None or (user[0], user[4]) == ("dev", "dev")
    assert str((another.path / "made").stat().st_uid) == owner
    said = another.run("nox", "-s", "tests", "--", *SOME_TESTS)
    assert re.search(
        r"^PostgreSQL 18\S*, in Docker \(postgres:18\), because Docker answers$", said, re.MULTILINE
    ), said
    assert re.search(r"\d+ passed", said)
    assert not re.search(r"\d+ (failed|skipped)", said)

    opened.checkout.psql("CREATE TABLE only_here (id int)")
    another.run("nox", "-s", "db_reset")
    assert opened.checkout.psql("SELECT to_regclass('only_here')") == "only_here"

    another.close()
    assert another.left() == {}
    assert set(opened.left()) == {"containers", "volumes", "networks", "images"}


def test_clone_in_a_volume_is_its_user_s(another: Workspace) -> None:
    """As editors and Codespaces keep it: nothing of the workspace is outside, and root made what is in it."""
    volume = f"{another.project}-clone"
    copied = "cp --archive /outside/. /workspace && chown --recursive root:root /workspace"
    mounts = ("-v", f"{volume}:/workspace", "-v", f"{another.path}:/outside:ro")
    label = f"com.docker.compose.project={another.project}"
    another.checkout.run("docker", "volume", "create", "--label", label, volume)
    try:
        another.checkout.run(
            "docker", "run", "--rm", *mounts, "--entrypoint", "bash", "postgres:18", "-c", copied
        )

        another.up("--mount", f"type=volume,source={volume},target=/workspace,external=true")

        assert another.run("bash", "-c", "id -u; stat -c %U . README.md; git status --porcelain").split() == [
            "1000",
            "dev",
            "dev",
        ]
        assert another.run("bash", "-c", "find ~ ! -user dev").strip() == "", (
            "the image leaves nothing of root's"
        )
        assert re.search(
            r"\d+ passed", another.run("nox", "-s", "tests", "--", "backend/tests/test_openapi.py")
        )
    finally:
        another.clean()
        another.checkout.run("docker", "volume", "rm", "--force", volume)


def test_processes_that_are_orphaned_are_reaped(opened: Workspace) -> None:
    opened.run("bash", "-c", "(sleep 0.1 &) ; exit 0")

    def zombies() -> str:
        return opened.run("bash", "-c", "ps -eo stat= | grep -c ^Z || true").strip()

    wait_until(lambda: zombies() == "0", seconds=20, what="no zombies")


def test_closing_is_quick_and_leaves_data(opened: Workspace) -> None:
    """Compose stops it within its grace period: a first process that ignores SIGTERM would use that up."""
    opened.compose("stop", "workspace")

    state = (
        "docker",
        "inspect",
        "--format",
        "{{.State.ExitCode}}",
        opened.compose("ps", "-aq", "workspace").strip(),
    )
    assert opened.checkout.run(*state).strip() == "0"
