"""Servers in containers, on a real engine: what they promise when all goes well, and when it does not."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from testcontainers.core.labels import SESSION_ID

from freshpg import PostgresUnavailable, choose
from freshpg.container import START_SECONDS

ROOT = Path(__file__).parents[2]
IMAGE = "postgres:18"

PLUGIN = ("-p", "freshpg.plugin", "-p", "no:cacheprovider")


def containers(session: str) -> set[str]:
    """Return the containers of one process that uses testcontainers, its reaper among them; others may run too."""
    found: set[str] = set()
    for each in (f"label=org.testcontainers.session-id={session}", f"name=testcontainers-ryuk-{session}"):
        command = ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", each]
        found |= set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return found


def note_session(place: Path) -> None:
    """Have the process of an inner run that starts the container note its session."""
    (place / "conftest.py").write_text(
        "import pathlib\n"
        "from testcontainers.core.labels import SESSION_ID\n"
        "def pytest_configure(config):\n"
        "    if not hasattr(config, 'workerinput'):\n"
        "        pathlib.Path(__file__).with_name('session').write_text(SESSION_ID)\n",
        encoding="utf-8",
    )


def noted_session(place: Path) -> str:
    return (place / "session").read_text(encoding="utf-8")


def wait_until_gone(session: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := containers(session):
        assert time.monotonic() < deadline, f"still there after {seconds} s: {left}"
        time.sleep(0.1)


@pytest.fixture
def dying_image(tmp_path: Path) -> Iterator[str]:
    """Return an image whose server dies at once, with a word in its log."""
    name = "procore-e2e-dying:1"
    script = 'RUN printf "#!/bin/sh\\necho disk on fire >&2\\nexit 3\\n" >/entry && chmod +x /entry'
    (tmp_path / "Dockerfile").write_text(f'FROM {IMAGE}\n{script}\nENTRYPOINT ["/entry"]\n', encoding="utf-8")
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, tmp_path], check=True, stdout=subprocess.DEVNULL
    )
    yield name
    subprocess.run(["docker", "rmi", "--force", name], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("image", ["postgres:15", "postgres:17", "postgres:18"])
def test_a_container_serves_with_its_data_in_memory_and_is_gone_with_its_reaper(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment names another database, as the application's does, and must not be followed."""
    for name in ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"):
        monkeypatch.setenv(name, "theirs")
    choice = choose("docker", image=image)
    assert choice.version.partition(".")[0] == image.partition(":")[2]
    assert choice.why == "as --postgres docker asks"

    with choice.start() as server, psycopg.connect(server.url) as connection:
        made = containers(SESSION_ID)
        settings = [
            connection.execute(f"show {name}").fetchall()[0][0]
            for name in (
                "server_version_num",
                "fsync",
                "data_directory",
                "timezone",
                "track_commit_timestamp",
                "log_line_prefix",
            )
        ]
        user = connection.execute("select current_user").fetchone()
        commands = [["docker", "exec", each, "df", "/pgtmp"] for each in made]
        filesystems = [
            subprocess.run(each, capture_output=True, text=True, check=False).stdout for each in commands
        ]

    assert settings[0][:2] == image.partition(":")[2]
    assert settings[1:] == ["off", "/pgtmp/data", "UTC", "on", "%m [%p] %q[%d] "]
    assert user == ("postgres",)
    assert len(made) == 2
    assert any("tmpfs" in filesystem for filesystem in filesystems)
    assert containers(SESSION_ID) == set()


def test_a_container_that_dies_is_reported_at_once_with_its_log(dying_image: str) -> None:
    choice = choose("docker", image=dying_image)
    started = time.monotonic()

    with pytest.raises(PostgresUnavailable) as refusal:
        choice.start()

    assert str(refusal.value) == (
        f"The container of {dying_image} stopped while it started. Its log ends:\n  disk on fire"
    )
    assert time.monotonic() - started < START_SECONDS / 2
    assert containers(SESSION_ID) == set()


def test_an_image_that_cannot_be_had_is_refused_when_docker_is_pinned(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        choose("docker", image="postgres.invalid/none:1", pull_seconds=20)

    assert "cannot be had: " in str(refusal.value)
    assert "postgres.invalid/none:1" in str(refusal.value)
    assert capfd.readouterr().err.startswith("Pulling postgres.invalid/none:1 (at most 20 s) ...\n")


def test_a_pull_that_takes_too_long_is_given_up_and_binaries_serve() -> None:
    started = time.monotonic()
    choice = choose("auto", image="postgres.invalid/none:1", pull_seconds=0.001)

    assert choice.kind == "embedded"
    assert "postgres.invalid/none:1" in choice.why
    assert time.monotonic() - started < 30


def test_without_a_reaper_to_be_had_it_is_said_and_the_container_removed_all_the_same() -> None:
    script = (
        "from freshpg import choose\n"
        "from testcontainers.core.labels import SESSION_ID\n"
        "server = choose('docker', pull_seconds=2).start()\n"
        "print(SESSION_ID, *server.notes)\n"
        "raise SystemExit(3)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"RYUK_CONTAINER_IMAGE": "postgres.invalid/ryuk:1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 3, result.stderr
    session, _, note = result.stdout.partition(" ")
    assert note.startswith("No reaper for containers (")
    assert "a run that is killed leaves its container" in result.stderr
    assert containers(session) == set()


@pytest.mark.parametrize(
    ("variables", "notes"),
    [
        ({"TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX": "docker.io/", "TC_MAX_TRIES": "0"}, []),
        ({"TESTCONTAINERS_RYUK_DISABLED": "true"}, ["No reaper for containers (it is disabled): "]),
    ],
    ids=["prefix", "disabled"],
)
def test_settings_of_testcontainers_are_followed(variables: dict[str, str], notes: list[str]) -> None:
    script = (
        "from freshpg import choose\n"
        "with choose('docker').start() as server:\n"
        "    print(*(note.partition(': ')[0] + ': ' for note in server.notes), sep='')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout == "".join(notes) + "\n"


@pytest.mark.parametrize("name", ["TC_MAX_TRIES", "TESTCONTAINERS_CONNECTION_MODE"])
def test_a_mistake_in_testcontainers_settings_is_one_plain_line(name: str) -> None:
    command = [sys.executable, "-m", "freshpg", "run", "--postgres", "docker", "--", "true"]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | {name: "bogus"}, capture_output=True, text=True, check=False
    )

    assert result.returncode == 69
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("testcontainers cannot read its settings (")
    assert "bogus" in result.stderr


def test_the_reaper_stays_until_the_last_container_is_gone() -> None:
    with choose("docker").start():
        choose("docker").start().stop()
        assert len(containers(SESSION_ID)) == 2

    assert containers(SESSION_ID) == set()


def test_a_killed_owner_leaves_no_container() -> None:
    script = (
        "import sys\n"
        "from freshpg import choose\n"
        "from testcontainers.core.labels import SESSION_ID\n"
        "server = choose('docker').start()\n"
        "print(SESSION_ID, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        session = owner.stdout.readline().strip()
        assert len(containers(session)) == 2
        owner.kill()

    wait_until_gone(session, 60)


def test_a_container_that_is_handed_over_outlives_its_reaper_and_later_runs_until_it_is_told() -> None:
    """Whatever else its process starts afterwards, and without the mark of a process that is gone being heeded."""
    script = (
        "from freshpg import choose\n"
        "from testcontainers.core.labels import SESSION_ID\n"
        "server = choose('docker').start()\n"
        "print(SESSION_ID, server.url, server.leave_running(), flush=True)\n"
        "choose('docker').start()\n"
    )
    owner = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    session, url, end = owner.stdout.strip().split(" ", 2)
    left = containers(session)
    try:
        choose("docker").start().stop()
        # Longer than a reaper waits for a process that has ended.
        time.sleep(15)
        with psycopg.connect(url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        assert len(left) == 1
        assert containers(session) == left
    finally:
        subprocess.run(end.split(), check=True, stdout=subprocess.DEVNULL)
    assert containers(session) == set()


def test_without_a_reaper_the_end_of_a_run_says_so(tmp_path: Path) -> None:
    note_session(tmp_path)
    (tmp_path / "test_suite.py").write_text("def test_it(postgres_server): pass\n", encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, "--postgres", "docker"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "RYUK_CONTAINER_IMAGE": "postgres.invalid/ryuk:1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(
        r"^No reaper for containers \(the image postgres.invalid/ryuk:1", result.stdout, re.MULTILINE
    )
    assert containers(noted_session(tmp_path)) == set()


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_the_plugin_runs_a_suite_in_a_container_and_removes_it(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    note_session(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    (tmp_path / "test_suite.py").write_text(
        "import psycopg, pytest\n"
        "@pytest.mark.parametrize('number', range(4))\n"
        "def test_clone(postgres_clone, postgres_server, number):\n"
        "    assert postgres_server.kind == 'docker'\n"
        "    psycopg.connect(postgres_clone.replace('+psycopg', '')).close()\n",
        encoding="utf-8",
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, "--postgres", "docker", *workers],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 passed" in result.stdout
    assert re.search(
        r"^PostgreSQL 18\S*, in Docker \(postgres:18\), as --postgres docker asks$",
        result.stdout,
        re.MULTILINE,
    )
    assert containers(noted_session(tmp_path)) == set()
