"""Images that are initialised already: made once, used from then on, and no obstacle where they are of no use."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker  # type: ignore[import-untyped] # it has no types
import psycopg
import pytest
from docker.errors import ImageNotFound  # type: ignore[import-untyped] # likewise

from freshpg import Server, choose
from freshpg.container_seed import (
    BASE_LABEL,
    KEPT_OF_A_BASE,
    REPOSITORY,
    SEED_LABEL,
    TEMPLATE_LABEL,
    prune,
    seeds,
)

ROOT = Path(__file__).parents[2]
IMAGE = "postgres:18"
PREPARING = "Preparing {} for quick starts, once ...\n"

BuildImage = Callable[..., str]


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def build(engine: docker.DockerClient, tmp_path: Path) -> Iterator[BuildImage]:
    """Build images on the public one; they are gone afterwards, with the seeds that were made of them."""
    names: set[str] = set()
    # Runs of other checkouts use the same engine.
    own = f"procore-e2e-derived-{secrets.token_hex(4)}:1"

    def build(*lines: str, name: str = own) -> str:
        names.add(name)
        (tmp_path / "Dockerfile").write_text("\n".join([f"FROM {IMAGE}", *lines]) + "\n", encoding="utf-8")
        engine.images.build(path=str(tmp_path), tag=name, rm=True, forcerm=True)
        return name

    yield build
    for record in seeds(engine):
        if record["Labels"].get(BASE_LABEL) in names:
            engine.images.remove(record["Id"], force=True)
    for name in names:
        engine.images.remove(name, force=True)


def start(image: str) -> Server:
    return choose("docker", image=image).start()


def cluster(server: Server) -> object:
    with psycopg.connect(server.url) as connection:
        return connection.execute("select system_identifier from pg_control_system()").fetchall()[0][0]


def seeds_of(engine: docker.DockerClient, image: str) -> list[str]:
    return [record["Id"] for record in seeds(engine) if record["Labels"].get(BASE_LABEL) == image]


def test_an_image_is_initialised_once_as_its_own_entry_point_does_it(
    build: BuildImage, engine: docker.DockerClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """The account has another number, as in the Alpine images, and a script of the image makes a role."""
    image = build(
        "RUN usermod --uid 70 postgres && chown -R 70 /var/lib/postgresql /var/run/postgresql",
        "RUN echo \"psql -c 'create role from_the_image'\" > /docker-entrypoint-initdb.d/role.sh",
    )
    with start(image) as first:
        made = cluster(first)
        assert capfd.readouterr().err == PREPARING.format(image)
        with psycopg.connect(first.url) as connection:
            connection.execute("create role left_behind")
    with start(image) as second:
        assert cluster(second) == made
        with psycopg.connect(second.url) as connection:
            roles = connection.execute(
                "select rolname from pg_roles where rolname !~ '^pg_' order by 1"
            ).fetchall()
            assert roles == [("from_the_image",), ("postgres",)]
            assert connection.execute("show data_directory").fetchone() == ("/pgtmp/data",)
        theirs = psycopg.conninfo.conninfo_to_dict(first.url)["password"]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(psycopg.conninfo.make_conninfo(second.url, password=theirs))

    assert capfd.readouterr().err == ""
    (seed,) = seeds_of(engine, image)
    # The reaper of the run that made it removes whatever has its session's label, images too.
    assert engine.images.get(seed).labels["org.testcontainers.session-id"] == ""


def test_a_newer_image_of_the_same_name_has_a_seed_of_its_own_and_old_ones_are_removed(
    build: BuildImage, engine: docker.DockerClient, capfd: pytest.CaptureFixture[str]
) -> None:
    clusters = set()
    for number in range(KEPT_OF_A_BASE + 1):
        image = build(f"RUN echo {number} > /number")
        with start(image) as server:
            clusters.add(cluster(server))
        # The engine tells the time of making in seconds.
        time.sleep(1)
    assert len(clusters) == KEPT_OF_A_BASE + 1
    assert len(seeds_of(engine, image)) == KEPT_OF_A_BASE

    with start(image) as server:
        assert cluster(server) in clusters


def test_a_seed_that_a_container_uses_is_not_removed(
    build: BuildImage, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build("RUN echo used > /number")
    with start(image) as server:
        monkeypatch.setattr("freshpg.container_seed.KEPT_DAYS", -1)
        monkeypatch.setattr(
            "freshpg.container_seed.seeds",
            lambda client: [each for each in seeds(client) if each["Labels"][BASE_LABEL] == image],
        )
        prune(engine)
        assert len(seeds_of(engine, image)) == 1
        cluster(server)

    prune(engine)
    assert seeds_of(engine, image) == []


def test_a_seed_that_lost_its_name_to_another_is_removed(
    build: BuildImage, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So two runs that make it at once leave it; and one that has no name yet is left alone."""
    image = build("RUN echo nameless > /number")
    start(image).stop()
    (seed,) = seeds_of(engine, image)
    (name,) = engine.images.get(seed).tags
    engine.images.get(image).tag(*name.split(":"))

    prune(engine)
    assert seeds_of(engine, image) == [seed]

    monkeypatch.setattr("freshpg.container_seed.NAMELESS_SECONDS", -1)
    monkeypatch.setattr(
        "freshpg.container_seed.seeds",
        lambda client: [each for each in seeds(client) if each["Labels"][BASE_LABEL] == image],
    )
    prune(engine)
    engine.images.remove(name)
    assert seeds_of(engine, image) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("RUN rm -rf /pgseed", "cp: cannot stat '/pgseed/data': No such file or directory"),
        ("RUN rm -rf /pgseed/data/global/pg_control", "could not open file"),
        ("LABEL postgres-for-tests.seed='not json'", None),
    ],
    ids=["empty", "damaged", "mislabelled"],
)
def test_a_seed_of_no_use_is_told_and_the_image_itself_serves(  # noqa: PLR0917 (fixtures and parameters)
    build: BuildImage,
    engine: docker.DockerClient,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    line: str,
    reason: str | None,
) -> None:
    image = build("RUN echo broken > /number")
    start(image).stop()
    (seed,) = seeds_of(engine, image)
    (name,) = engine.images.get(seed).tags
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nUSER root\n{line}\n", encoding="utf-8")
    engine.images.build(path=str(tmp_path), tag=name, rm=True, forcerm=True)
    capfd.readouterr()

    with start(image) as server:
        cluster(server)
    told = capfd.readouterr().err
    with start(image) as server:
        cluster(server)

    if reason is None:
        assert told == PREPARING.format(image)
    else:
        assert told.startswith(
            f"No quick start for {image}: The container of {image} stopped while it started ("
        )
        assert reason in told
        assert len(told.splitlines()) == 1
        assert capfd.readouterr().err == PREPARING.format(image)


def test_an_image_that_makes_checksums_all_the_same_is_started_the_plain_way(
    build: BuildImage, capfd: pytest.CaptureFixture[str]
) -> None:
    image = build("ENV PG_MAJOR=unknown")

    with start(image) as server, psycopg.connect(server.url) as connection:
        assert connection.execute("show data_checksums").fetchone() == ("on",)

    told = capfd.readouterr().err
    assert told == PREPARING.format(image) + f"No quick start for {image}: its data have checksums.\n"


def test_two_runs_at_once_make_a_seed_without_harm_to_each_other(build: BuildImage) -> None:
    image = build("RUN echo two > /number")
    script = (
        "import psycopg\n"
        "from freshpg import choose\n"
        f"with choose('docker', image={image!r}).start() as server:\n"
        "    psycopg.connect(server.url).close()\n"
    )
    runs = [subprocess.Popen([sys.executable, "-W", "error", "-c", script], cwd=ROOT) for _ in range(2)]

    assert [run.wait(120) for run in runs] == [0, 0]
    start(image).stop()


def test_the_command_clears_the_images_that_no_container_uses(
    build: BuildImage, engine: docker.DockerClient
) -> None:
    image = build("RUN echo cleared > /number")
    start(image).stop()
    command = [sys.executable, "-m", "freshpg", "cache"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (seed,) = seeds_of(engine, image)
    (name,) = engine.images.get(seed).tags

    assert name.startswith(f"{REPOSITORY}:")
    assert f"  {name} of {image}  " in shown.stdout
    assert SEED_LABEL in engine.images.get(name).labels

    subprocess.run([*command, "--clear"], cwd=ROOT, capture_output=True, check=True)

    with pytest.raises(ImageNotFound):
        engine.images.get(name)


CONFTEST = """
import psycopg, pytest

def run(url, statement):
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

@pytest.fixture(scope="session")
def postgres_prepare():
    def prepare(url):
        with open("prepared", "a") as file:
            print(file=file)
        run(url, "create table things (id int)")
        run(url, "create role of_the_schema login password 'of the schema'")
    return prepare
"""

SUITE = """
import pytest
from conftest import run

@pytest.fixture(scope="session", autouse=True)
def left(postgres_server):
    roles = "select rolname from pg_roles where rolname in ('of_the_schema', 'left_behind')"
    assert ("left_behind",) not in run(postgres_server.url, roles)
    run(postgres_server.url, "create role left_behind")

def test_it(postgres_clone):
    assert run(postgres_clone, "select count(*) from things") == [(0,)]
    assert run(postgres_clone, "select to_regrole('of_the_schema') is not null") == [(True,)]
    run(postgres_clone, "insert into things values (1)")
"""

Prepared = Callable[..., int]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Run a suite in a container of an image, and tell how often its template was prepared."""
    place = tmp_path / "project"
    place.mkdir()
    (place / "pytest.ini").write_text(
        "[pytest]\naddopts = -p freshpg.plugin -p no:cacheprovider -p no:randomly\n"
        "postgres_template_inputs = schema\n",
        encoding="utf-8",
    )
    (place / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (place / "test_suite.py").write_text(SUITE, encoding="utf-8")

    def run(image: str, schema: str, *arguments: str) -> int:
        (place / "schema").write_text(schema, encoding="utf-8")
        (place / "prepared").write_text("", encoding="utf-8")
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "--postgres", "docker", "--postgres-image", image, *arguments],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "1 passed" in result.stdout, result.stdout + result.stderr
        assert "The template is not kept" not in result.stdout
        return len((place / "prepared").read_text(encoding="utf-8").splitlines())

    return run


def test_a_template_is_kept_in_an_image_until_what_it_is_made_of_changes(
    build: BuildImage, engine: docker.DockerClient, prepared: Prepared
) -> None:
    image, workers = build("RUN echo template > /number"), ("-n", "2")

    # For the run itself, and for the image.
    assert prepared(image, "one", *workers) == 2
    assert prepared(image, "one", *workers) == 0
    assert prepared(image, "two", *workers) == 2
    assert prepared(image, "two", *workers) == 0
    assert prepared(image, "one", *workers) == 0

    labels = [engine.images.get(seed).labels for seed in seeds_of(engine, image)]
    assert sorted(bool(each[TEMPLATE_LABEL]) for each in labels) == [False, True, True]
    assert {each["org.testcontainers.session-id"] for each in labels} == {""}


def test_a_template_whose_image_is_of_no_use_is_prepared_again(
    build: BuildImage, engine: docker.DockerClient, prepared: Prepared, tmp_path: Path
) -> None:
    image = build("RUN echo broken template > /number")
    assert prepared(image, "one") == 2
    (seed,) = [each for each in seeds_of(engine, image) if engine.images.get(each).labels[TEMPLATE_LABEL]]
    (name,) = engine.images.get(seed).tags
    damage = "RUN rm /pgseed/data/global/pg_control"
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nUSER root\n{damage}\n", encoding="utf-8")
    engine.images.build(path=str(tmp_path), tag=name, rm=True, forcerm=True)

    # The image itself serves, whose template is kept by none.
    assert prepared(image, "one") == 1
    assert prepared(image, "one") == 2
    assert prepared(image, "one") == 0
