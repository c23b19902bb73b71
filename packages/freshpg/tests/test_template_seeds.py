"""The template that a project's tests begin with, kept for later runs, by the plugin as its users run it."""

from pathlib import Path

import pytest

from freshpg import start_ephemeral

from .support import query, wait_until
from .test_plugin import CONFTEST, WORKERS, Project, pytest_in
from .test_plugin import project as project  # noqa: PLC0414 (for pytest to find it here as well)

SEEDED = """
import pytest
from conftest import connect

@pytest.fixture(scope="session", autouse=True)
def left(postgres_server):
    with connect(postgres_server.url) as connection:
        assert connection.execute("select from pg_roles where rolname = 'left'").fetchall() == []
        assert connection.execute("select from pg_database where datname = 'left'").fetchall() == []
        connection.execute('create role "left"')
        connection.execute('create database "left"')

def test_it(postgres_clone):
    with connect(postgres_clone) as connection:
        rows = connection.execute("select count(*) from things").fetchone()
        assert rows == (0,)
        connection.execute("insert into things default values")
"""


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["alone", "workers"])
def test_a_template_is_kept_for_later_runs_until_its_inputs_change(
    project: Project, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    place = project(SEEDED)
    (place / "schema.sql").write_text("one", encoding="utf-8")
    with (place / "pytest.ini").open("a", encoding="utf-8") as settings:
        settings.write("postgres_template_inputs =\n    schema.sql\n    conftest.py\n")
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def preparations() -> int:
        """Run the suite, and tell how often the template was prepared in it."""
        (place / "prepared").write_text("", encoding="utf-8")
        result = pytest_in(place, "--postgres", "embedded", *workers, **home)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "The cached" not in result.stdout + result.stderr
        return len((place / "prepared").read_text(encoding="utf-8").splitlines())

    # For the run itself, and for the seed.
    assert preparations() == 2
    assert preparations() == 0
    (place / "schema.sql").write_text("two", encoding="utf-8")
    assert preparations() == 2
    assert preparations() == 0
    (place / "schema.sql").write_text("one", encoding="utf-8")
    assert preparations() == 0


def test_a_preparation_that_fails_the_second_time_costs_the_run_nothing_and_is_not_kept(
    project: Project, tmp_path: Path
) -> None:
    """The second is the one for the cache; a half of what it makes is not what later runs are to begin with."""
    place = project("def test_it(postgres_clone): pass\n")
    conftest = CONFTEST.replace(
        "print(url, file=file)", "print(url, file=file); again = file.tell() > len(url) + 1"
    )
    conftest = conftest.replace(
        "    return prepare",
        "        if again: raise RuntimeError(f'only once, please: {url}')\n    return prepare",
    )
    (place / "conftest.py").write_text(conftest, encoding="utf-8")
    with (place / "pytest.ini").open("a", encoding="utf-8") as settings:
        settings.write("postgres_template_inputs = conftest.py\n")
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    result = pytest_in(place, "-rP", "--postgres", "embedded", **home)

    assert "1 passed" in result.stdout, result.stdout + result.stderr
    assert (
        "The template is not kept for later runs: RuntimeError: only once, please: postgresql"
        in result.stdout
    )
    assert "***@127.0.0.1:" in result.stdout
    assert [each.name[:5] for each in (tmp_path / "cache" / "postgres-for-tests").iterdir()] == ["bare-"]


def test_an_input_of_the_template_that_is_not_there_is_one_plain_error(project: Project) -> None:
    place = project()
    with (place / "pytest.ini").open("a", encoding="utf-8") as settings:
        settings.write("postgres_template_inputs = modles\n")

    result = pytest_in(place, "--postgres", "embedded")

    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    told = result.stdout + result.stderr
    assert f"postgres_template_inputs: modles names no file below {place}." in told
    assert "Traceback" not in told


def test_a_server_that_was_kept_teaches_the_cache_nothing(project: Project, tmp_path: Path) -> None:
    """It was started for what made the template then, and by now that may be something else."""
    place = project("def test_it(postgres_clone): pass\n")
    with (place / "pytest.ini").open("a", encoding="utf-8") as settings:
        settings.write("postgres_template_inputs = schema.sql\n")
    (place / "schema.sql").write_text("one", encoding="utf-8")
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with start_ephemeral() as server:
        query(server.url, "alter system set seed.wanted = 'the digest of another time'")
        query(server.url, "select pg_reload_conf()")
        wait_until(lambda: query(server.url, "show seed.wanted")[0][0] != "", "the setting")

        result = pytest_in(place, "--postgres", server.url, **home)

    assert "1 passed" in result.stdout, result.stdout + result.stderr
    assert len((place / "prepared").read_text(encoding="utf-8").splitlines()) == 1
    assert list(tmp_path.glob("cache/**/template-*")) == []
