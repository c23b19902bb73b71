"""`nox -s db_upgrade`, `db_backup` and `db_restore` on Compose's database, from an older PostgreSQL's volume."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import psycopg

from backend.tests.support import wait_until
from devtools.backup.volume_upgrade import MARK
from freshpg import database_url

from .checkout import HOSTILE, HOSTILE_IN_ENV, Checkout, accepts, docker, request

DATABASE = (sys.executable, "-m", "devtools.database")
UPGRADE = (sys.executable, "-m", "devtools.backup.postgres_upgrade")
OLD_DATA = """
    CREATE ROLE "old hand" LOGIN PASSWORD 'their own' CREATEDB CONNECTION LIMIT 7;
    CREATE ROLE crew; GRANT crew TO "old hand"; ALTER ROLE crew SET work_mem = '7MB';
    INSERT INTO companies (name) SELECT 'Company ' || n FROM generate_series(1, 20) AS n;
    INSERT INTO usage_logs (company_id, action) SELECT 1 + n % 20, 'project.read' FROM generate_series(1, 2000) AS n;
    CREATE TABLE theirs (at timestamptz); INSERT INTO theirs VALUES ('infinity'), (NULL);
    ALTER TABLE theirs OWNER TO crew;
    SELECT lo_from_bytea(4711, '\\x0001')
"""
SEEN = (
    "SELECT id, name, created_at, updated_at FROM companies ORDER BY id",
    "SELECT count(*), max(id) FROM usage_logs",
    "SELECT last_value, is_called FROM usage_logs_id_seq",
    "SELECT at::text, tableoid::regclass::text FROM theirs ORDER BY 1",
    "SELECT lo_get(4711), obj_description('alembic_version'::regclass)",
    "SELECT rolname, rolconnlimit, rolcreatedb, rolconfig FROM pg_roles WHERE rolname !~ '^p' ORDER BY 1",
    "SELECT current_setting('timezone')",
    "SELECT datname FROM pg_database WHERE datistemplate ORDER BY 1",
)


def seen(url: str) -> object:
    with psycopg.connect(url) as connection:
        return [connection.execute(query.encode()).fetchall() for query in SEEN]


@contextmanager
def old_server(major: int, volume: str) -> Iterator[str]:
    """Run a server as an older Compose file did, on the volume; yield the URL of its database."""
    container = docker(
        "run", "--detach", "--volume", f"{volume}:/var/lib/postgresql/data", "--publish", "127.0.0.1::5432",
        "--env", "POSTGRES_PASSWORD=as-it-was", "--env", "POSTGRES_DB=procore_integrator", f"postgres:{major}",
    )  # fmt: skip
    try:
        port = docker("port", container, "5432").rpartition(":")[2]
        url = f"postgresql://postgres:as-it-was@127.0.0.1:{port}/procore_integrator"
        wait_until(lambda: accepts(url), seconds=60, what="the old server")
        yield url
        docker("stop", "-t", "120", container)  # if it were killed, sequences would skip values
    finally:
        docker("rm", "--force", "--volumes", container, check=False)


def make_volume(checkout: Checkout, major: int) -> tuple[str, object]:
    """Make Compose's volume like an older PostgreSQL; return its name and contents."""
    project = checkout.environment["COMPOSE_PROJECT_NAME"]
    volume = f"{project}_db"
    labels = (f"com.docker.compose.project={project}", "com.docker.compose.volume=db")
    docker("volume", "create", *(word for label in labels for word in ("--label", label)), volume)
    with old_server(major, volume) as url:
        checkout.run(sys.executable, "-m", "backend.scripts.init_db", DATABASE_URL=url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(OLD_DATA.encode())
            connection.execute("ALTER DATABASE procore_integrator SET timezone = 'Asia/Kathmandu'")
            connection.execute('CREATE DATABASE "an other" IS_TEMPLATE true')
        return volume, seen(url)


def in_volume(volume: str, program: str, *arguments: str) -> str:
    mounted = ("--volume", f"{volume}:/v", "--entrypoint", program)
    return docker("run", "--rm", *mounted, "postgres:18", *arguments)


def url_of(checkout: Checkout, login: str = "postgres:postgres") -> str:
    return f"postgresql://{login}@127.0.0.1:{checkout.db_port}/procore_integrator"


def test_volume_is_upgraded_served_backed_up_and_restored(checkout: Checkout) -> None:
    volume, before = make_volume(checkout, 15)

    said = checkout.run(*UPGRADE)

    assert f"Compose's volume {volume}: from PostgreSQL 15 to 18.\n" in said
    assert "is already upgraded." in checkout.run(*UPGRADE)
    with old_server(15, volume) as url:
        assert seen(url) == before, "the old data are as they were"
    checkout.compose("up", "--detach", "--wait")
    assert checkout.psql("SHOW server_version_num").startswith("18")
    assert seen(url_of(checkout)) == before
    assert accepts(database_url(url_of(checkout, "old%20hand:their%20own"), "postgres"))
    assert not accepts(url_of(checkout, "postgres:as-it-was")), "it is Compose's password now"

    checkout.run(*DATABASE, "backup")
    assert request(f"{checkout.url}/api/v1/companies", data={"name": "Later"}).status_code == 201
    checkout.run(*DATABASE, "restore")
    assert request(f"{checkout.url}/api/v1/companies/2").json()["name"] == "Company 2", (
        "the API is connected again"
    )
    assert seen(url_of(checkout)) == before
    assert "Dropped" in checkout.run(*DATABASE, "restore", "--drop-old")

    assert "dropped the data of PostgreSQL 15" in checkout.run(*UPGRADE, "--drop-old")
    assert in_volume(volume, "ls", "/v") == "18"
    assert seen(url_of(checkout)) == before


def test_upgrade_killed_at_any_moment_loses_nothing_and_the_next_one_finishes(checkout: Checkout) -> None:
    volume, before = make_volume(checkout, 17)
    (checkout.path / ".env").write_text(f"POSTGRES_PASSWORD='{HOSTILE_IN_ENV}'\n")
    for _ in range(3):
        process = subprocess.Popen(UPGRADE, cwd=checkout.path, env=checkout.environment)
        time.sleep(random.uniform(3, 12))
        process.kill()
        process.wait()

    checkout.run(*UPGRADE)

    assert docker("ps", "--all", "--quiet", "--filter", f"volume={volume}") == ""
    checkout.compose("up", "--detach", "--wait", "db")
    assert seen(url_of(checkout, f"postgres:{quote(HOSTILE, safe='')}")) == before
    checkout.compose("stop", "db")
    with old_server(17, volume) as url:
        assert seen(url) == before

    # Data of 18 without the upgrade's mark could be somebody's work.
    in_volume(volume, "rm", f"/v/18/docker/{MARK}")
    for options in ([], ["--drop-old"]):
        assert "`db_upgrade` did not copy" in checkout.run(*UPGRADE, *options, check=False)
    assert "PG_VERSION" in in_volume(volume, "ls", "/v")
