"""`nox -s db_upgrade`: data of an older PostgreSQL, in Compose's volume or in `.dev/`, come to the new one whole."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from devtools.tests.backup.stopping import stopped
from freshpg import database_url, start_persistent

from .checkout import Checkout, request, wait_until

DATABASE = (sys.executable, "-m", "devtools.database")
UPGRADE = (sys.executable, "-m", "devtools.backup.upgrade")
HOSTILE = "p@ : / % $ # ' \" ${HOME} end"
MakeVolume = Callable[[int], tuple[Checkout, str, object]]

LABEL = "procore-integrator.db_upgrade"
OLD_DATA = """
    CREATE ROLE "old hand" LOGIN PASSWORD 'their own' CREATEDB CONNECTION LIMIT 7;
    CREATE ROLE crew; GRANT crew TO "old hand"; ALTER ROLE crew SET work_mem = '7MB';
    INSERT INTO companies (name) SELECT 'Company ' || n FROM generate_series(1, 20) AS n;
    UPDATE companies SET name = name || '!' WHERE id % 2 = 0;
    INSERT INTO usage_logs (company_id, action, quantity)
        SELECT 1 + n % 20, 'project.read', n FROM generate_series(1, 2000) AS n;
    CREATE TABLE theirs (at timestamptz); INSERT INTO theirs VALUES ('infinity'), (NULL);
    ALTER TABLE theirs OWNER TO crew;
    SELECT lo_from_bytea(4711, '\\x0001')
"""


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def seen(url: str) -> object:
    """What must be the same before and after, read by a way of its own."""
    with psycopg.connect(url) as connection:
        return [
            connection.execute(query).fetchall()
            for query in (
                "SELECT id, name, created_at, updated_at FROM companies ORDER BY id",
                "SELECT count(*), sum(quantity), max(id) FROM usage_logs",
                "SELECT last_value, is_called FROM usage_logs_id_seq",
                "SELECT at::text FROM theirs ORDER BY 1",
                "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'theirs'",
                "SELECT lo_get(4711), obj_description('alembic_version'::regclass)",
                "SELECT rolname, rolconnlimit, rolcreatedb, rolconfig FROM pg_roles WHERE rolname !~ '^p' ORDER BY 1",
                "SELECT setconfig FROM pg_db_role_setting WHERE setdatabase <> 0",
                "SELECT datname FROM pg_database WHERE datistemplate ORDER BY 1",
            )
        ]


def fill(checkout: Checkout, url: str) -> object:
    """Write what a server of long use holds: roles, two databases, settings; return what is seen of it."""
    url = url.removesuffix("postgres") + "procore_integrator"
    checkout.run(sys.executable, "-m", "backend.scripts.init_db", DATABASE_URL=url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(OLD_DATA.encode())
        connection.execute("ALTER DATABASE procore_integrator SET timezone = 'Asia/Kathmandu'")
        connection.execute('CREATE DATABASE "an other"')
    with psycopg.connect(database_url(url, "an other"), autocommit=True) as connection:
        connection.execute("CREATE TABLE things AS SELECT 42 AS answer")
        connection.execute('ALTER DATABASE "an other" IS_TEMPLATE true')
    return seen(url)


@contextmanager
def old_server(major: int, volume: str, password: str) -> Iterator[str]:
    """Run a server as a Compose file of the time before did, on the volume; lend its URL."""
    container = docker(
        "run", "--detach", "--volume", f"{volume}:/var/lib/postgresql/data", "--publish", "127.0.0.1::5432",
        "--env", f"POSTGRES_PASSWORD={password}", "--env", "POSTGRES_DB=procore_integrator", f"postgres:{major}",
    )  # fmt: skip
    try:
        port = docker("port", container, "5432").rpartition(":")[2]
        url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        wait_until(lambda: accepts(url), seconds=60, what="the old server")
        yield url
        docker("stop", container)
    finally:
        docker("rm", "--force", "--volumes", container, check=False)


def accepts(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def make_volume(make_checkout: Callable[[], Checkout]) -> MakeVolume:
    """Make a checkout whose volume an older PostgreSQL has used; return it, the volume, and what was seen in it."""

    def make(major: int) -> tuple[Checkout, str, object]:
        checkout = make_checkout()
        project = checkout.environment["COMPOSE_PROJECT_NAME"]
        volume = f"{project}_db"
        labels = (f"com.docker.compose.project={project}", "com.docker.compose.volume=db")
        docker("volume", "create", *(word for label in labels for word in ("--label", label)), volume)
        with old_server(major, volume, "as-it-was") as url:
            before = fill(checkout, url)
        return checkout, volume, before

    return make


def files(volume: str) -> str:
    """Say what every file of the old data is, by a checksum."""
    words = (
        "cd /data && find . -path ./18 -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"
    )
    return docker(
        "run", "--rm", "--volume", f"{volume}:/data:ro", "--entrypoint", "sh", "postgres:18", "-c", words
    )


def leftovers(volume: str) -> list[str]:
    words = ("run", "--rm", "--volume", f"{volume}:/data:ro", "--entrypoint", "sh", "postgres:18", "-c")
    made = docker(*words, "ls -d /data/18/* 2>/dev/null || true").split()
    containers = docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={volume}").split()
    return [*(each for each in made if each != "/data/18/docker"), *containers]


def url_of(checkout: Checkout, login: str = "postgres:postgres") -> str:
    return f"postgresql://{login}@127.0.0.1:{checkout.db_port}/procore_integrator"


def make_fresh(volume: str) -> None:
    """Have the new version make data beside the old, as after a first start, which some images do not refuse."""
    # Written otherwise than the image's own, which may look for old data then.
    place = ("--volume", f"{volume}:/var/lib/postgresql", "--env", "PGDATA=/var/lib/postgresql/18//docker")
    container = docker("run", "--detach", *place, "--env", "POSTGRES_PASSWORD=postgres", "postgres:18")
    try:
        ready = ("exec", container, "pg_isready", "--quiet", "--host", "127.0.0.1")
        wait_until(
            lambda: subprocess.run(["docker", *ready], check=False).returncode == 0, seconds=60, what="18"
        )
        docker("stop", container)
    finally:
        docker("rm", "--force", "--volumes", container, check=False)


def test_volume_comes_to_the_new_version_and_the_old_data_stay_as_they_were(make_volume: MakeVolume) -> None:
    checkout, volume, before = make_volume(15)
    old = files(volume)
    make_fresh(volume)
    checkout.compose("up", "--detach", "--wait", "db")

    for refused in ((), ("--drop-old",)):
        assert "were not made from them" in checkout.run(*UPGRADE, *refused, check=False)
    said = checkout.run(*UPGRADE, "--anew")

    assert "Stopping Compose's services, as its database is to be upgraded.\n" in said
    assert f"Compose's volume {volume}: from PostgreSQL 15 to 18.\n" in said
    assert "an other: 1 tables, 1 rows" in said
    assert files(volume) == old
    [aside] = leftovers(volume)
    assert aside.startswith("/data/18/docker.aside-")
    assert "18 already, made from 15's data, which are kept." in checkout.run(*UPGRADE)

    checkout.compose("up", "--detach", "--wait")

    assert checkout.psql("SHOW server_version_num").startswith("18")
    assert seen(url_of(checkout)) == before
    assert accepts(url_of(checkout, "old%20hand:their%20own"))
    assert not accepts(url_of(checkout, "postgres:as-it-was")), "it is Compose's password now"
    assert request(f"{checkout.url}/api/v1/companies/2").body["name"] == "Company 2!"

    tools = "from devtools.backup.tools import find_tools; from backend.config import load_settings as load"
    tools += "; print(find_tools(load().url, 18, compose_port=load().db_port).origin)"
    assert checkout.run(sys.executable, "-c", tools) == "of the server's own container\n"
    checkout.run(*DATABASE, "backup")
    assert request(f"{checkout.url}/api/v1/companies", data={"name": "Later"}).status == 201
    assert "each table as it was backed up" in checkout.run(*DATABASE, "restore", "--drop-old")
    assert request(f"{checkout.url}/api/v1/companies/2").body["name"] == "Company 2!", (
        "the API is connected anew"
    )
    assert seen(url_of(checkout)) == before

    dropped = checkout.run(*UPGRADE, "--drop-old")
    assert (
        dropped.count("dropped the data of PostgreSQL 15")
        == dropped.count("dropped the data of PostgreSQL 18")
        == 1
    )
    assert (
        docker("run", "--rm", "--volume", f"{volume}:/data:ro", "--entrypoint", "ls", "postgres:18", "/data")
        == "18"
    )
    assert leftovers(volume) == []
    assert seen(url_of(checkout)) == before
    assert "Nothing to drop" in checkout.run(*UPGRADE, "--drop-old")


def test_upgrade_that_is_stopped_at_any_point_changed_nothing_and_the_next_one_finishes(
    make_volume: MakeVolume,
) -> None:
    checkout, volume, before = make_volume(17)
    old = files(volume)
    written = HOSTILE.replace("'", "\\'")
    (checkout.path / ".env").write_text(f"POSTGRES_PASSWORD='{written}'\n")
    points = [
        ("beside.rename", "1", signal.SIGKILL),  # one database is there, and not its name
        ("containers.stop_cleanly", "after", signal.SIGINT),
        ("volume:Compose.script", "3", signal.SIGKILL),  # all is there but the last name
    ]
    for where, when, number in points:
        command = stopped(checkout.path / "backups", "upgrade", where, when, number)
        done = subprocess.run(
            command, cwd=checkout.path, env=checkout.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == (130 if number is signal.SIGINT else -number), (where, done.stderr)
        assert "Traceback" not in done.stderr
        assert ("Interrupted. What was not dropped is as it was" in done.stdout) == (number is signal.SIGINT)
        assert files(volume) == old
        assert bool(leftovers(volume)) == (number is signal.SIGKILL), where

    checkout.run(*UPGRADE)

    assert files(volume) == old
    assert leftovers(volume) == []
    checkout.compose("up", "--detach", "--wait", "db")
    assert seen(url_of(checkout, f"postgres:{quote(HOSTILE, safe='')}")) == before


@pytest.fixture
def make_directory(checkout: Checkout) -> Iterator[Callable[[int], tuple[Path, object]]]:
    """Make the data of an embedded server of an older version, with the old version's image."""
    made: list[Path] = []

    def make(major: int) -> tuple[Path, object]:
        directory = checkout.path / ".dev" / f"postgres-{major}"
        (directory / "data").mkdir(parents=True)
        made.append(directory)
        (directory / "password").write_text("as-it-was\n")
        with old_server(major, str(directory / "data"), "as-it-was") as url:
            return directory, fill(checkout, url)

    yield make
    for directory in made:
        # The image's account owns what lies there.
        docker(
            "run",
            "--rm",
            "--volume",
            f"{directory}:/it",
            "--entrypoint",
            "rm",
            "postgres:18",
            "-rf",
            "/it/data",
        )


@pytest.mark.parametrize("major", [15, 17])
def test_embedded_data_come_along_by_programs_that_are_here_or_by_an_image(
    major: int, checkout: Checkout, make_directory: Callable[[int], tuple[Path, object]]
) -> None:
    directory, before = make_directory(major)
    stop = stopped(checkout.path / "backups", "upgrade", "carry._carry_database", "1", signal.SIGKILL)
    killed = subprocess.run(
        stop, cwd=checkout.path, env=checkout.environment, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not directory.with_name("postgres-18").exists()
    assert len(list(directory.parent.glob("postgres-18.making-*"))) == 1

    said = checkout.run(*UPGRADE)

    assert f".dev/postgres-{major}: from PostgreSQL {major} to 18.\n" in said
    new = directory.with_name("postgres-18")
    assert {path.name for path in directory.parent.iterdir()} - {".gitignore"} == {directory.name, new.name}
    with start_persistent(new) as server:
        assert seen(database_url(server.url, "procore_integrator")) == before
    assert "Dropped .dev/" in checkout.run(*UPGRADE, "--drop-old")
    assert not directory.exists()
